"""Text under a grammar: compiled grammars, where a sequence stands, masks of what may follow."""
