"""Layers that two or more models use; each causal one has `initial_state` and `step`."""
