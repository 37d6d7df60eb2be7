"""Checkpoints, weight plans and loaders."""
