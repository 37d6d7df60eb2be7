"""Models from a hub of models, downloaded into the hub library's own cache."""
