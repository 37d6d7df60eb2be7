"""Skeletons of plugins, written by ``rtp plugins new``."""
