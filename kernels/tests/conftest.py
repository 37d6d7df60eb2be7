"""Triton kernels run in its interpreter here, on tensors of the CPU.

Triton decides at import whether a kernel is interpreted, its own library's included, and for the
life of the process: so the variable is set before any test module is imported. Compilation, which
an interpreting process cannot do, happens in another process (`gpu/ahead_of_time.py`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "gpu")]
