"""Training data: its kinds, items drawn by number, batches of them, and what is kept in memory."""
