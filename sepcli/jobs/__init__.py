"""What `separate` and `extract` do: many inputs, models chosen for them, and stems on disk."""
