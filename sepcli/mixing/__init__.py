"""What `mix` does: mixtures of speech, noise, rooms and music, each drawn by its number."""
