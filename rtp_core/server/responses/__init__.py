"""OpenAI's Responses API, stateless, on the way that chat completions take."""
