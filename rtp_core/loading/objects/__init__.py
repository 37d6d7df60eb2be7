"""Models in object stores, read in ranges straight into parameters: no copy on disk."""
