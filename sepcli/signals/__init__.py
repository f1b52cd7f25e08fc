"""Sound as numbers: float32 (channels, samples), their encodings, limits and sample rates."""
