"""What `eval` does: pairs, scores, frames, tables, reports."""
