"""Fused operations of the engine: tensors in, tensors out.

Each operation is a folder: `reference.py` is its definition in plain torch on any device,
`cpu.py` the fast CPU form, `triton.py` that of a GPU. `registry.resolver` binds them once, at
model build.
"""

from __future__ import annotations

__version__ = "0.1.0"
