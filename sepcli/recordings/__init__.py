"""Pools of recordings to draw from, and their packing."""
