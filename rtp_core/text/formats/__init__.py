"""How families of models write thoughts and calls of tools."""
