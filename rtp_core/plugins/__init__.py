"""Discovery, resolution and loading of plugins."""
