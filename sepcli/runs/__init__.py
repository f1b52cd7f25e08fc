"""Runs of trainings and quantisations: from a configuration to a folder with a model in it."""
