"""Quantized safetensors checkpoints: one module a format, from configuration to tensors."""
