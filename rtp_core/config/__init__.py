"""Settings: the typed tree and its readers (file, environment, flags)."""
