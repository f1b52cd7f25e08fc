"""Runs: trainings, and quantisations, from a configuration to a folder of models, logs and scores."""
