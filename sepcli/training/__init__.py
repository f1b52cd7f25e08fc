"""Training: losses, the loop, validation, runs, checkpoints; quantisation as a procedure."""
