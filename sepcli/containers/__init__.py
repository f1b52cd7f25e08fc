"""Formats of sound files: where in a file or a pipe the sound is, by the headers that are there."""
