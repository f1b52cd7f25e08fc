"""Weights of other people: the files that they come in, and where downloaded ones are kept."""
