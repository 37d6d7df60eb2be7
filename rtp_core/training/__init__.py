"""Training of draft heads on text that the model writes itself."""
