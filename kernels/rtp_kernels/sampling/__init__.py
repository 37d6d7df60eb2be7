"""Counter-based sampling: noise depends on seed, position, choice and token only."""
