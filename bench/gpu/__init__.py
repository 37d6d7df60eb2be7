"""Measurements of an engine on a GPU: `python -m bench.gpu --help`."""
