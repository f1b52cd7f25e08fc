"""Training: settings, the loop and what its steps compute, validation, several processes."""
