"""Built-in drafters, their controller."""
