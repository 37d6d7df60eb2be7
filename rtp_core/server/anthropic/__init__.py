"""Anthropic's Messages API on the way that chat completions take."""
