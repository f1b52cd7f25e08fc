"""Run models: whole files in bounded memory, streams, exported graphs."""
