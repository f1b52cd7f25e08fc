"""What `mix` does: mixtures of speech, noise, rooms and music, and the data that training draws."""
