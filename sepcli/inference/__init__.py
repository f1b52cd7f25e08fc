"""Run models: whole files in bounded memory, and streams; by torch or by their graphs."""
