"""Any causal language model of Hugging Face transformers, on the engine's own paged cache."""
