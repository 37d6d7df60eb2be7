"""The engine of a process, with a kernel that writes where it must not when a prompt says so."""

from __future__ import annotations

import torch
import triton
from triton import language as tl

from rtp_core.engine.assemble import build_engine

CUE = 1234
FAR = 1 << 44


@triton.jit
def write_far_away(pointer, distance):
    tl.store(pointer + distance, 1)


def build(config, progress):
    """A builder for `ProcessBackend`: a prompt that begins with CUE loses the device."""
    engine = build_engine(config, progress)
    launch = engine._runner.launch

    def wild(plan):
        if any(row.start == 0 and row.token_ids[0] == CUE for row in plan.rows):
            write_far_away[(1,)](torch.zeros(1, dtype=torch.int32, device="cuda"), FAR)
        return launch(plan)

    engine._runner.launch = wild
    return engine
