"""What llama.cpp's converter writes for each architecture, as tables.

Names of tensors and keys are those of the ``gguf`` package; what a missing key means, row
orders and offsets follow llama.cpp, which defines the format.
"""
