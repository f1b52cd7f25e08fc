"""From files to samples and training examples."""
