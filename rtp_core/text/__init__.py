"""Tokenizers, templates, incremental detokenization, stop strings."""
