"""Sequences, the scheduler, its policies."""
