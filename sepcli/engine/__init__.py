"""What runs models: training, whole files, streams."""
