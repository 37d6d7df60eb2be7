"""Recording ten sizes of decode steps: seconds, and memory of the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from bench.gpu.shape import build, close
from rtp_core.execution.device.programs import Programs


def found() -> Iterator[tuple[str, dict[str, Any]]]:
    """Of an engine whose texts have one bound, so that each size is recorded once."""
    taken: dict[str, float] = {}
    plain = Programs.capture

    def watched(self: Programs) -> float:
        torch.cuda.synchronize()
        before, began = torch.cuda.mem_get_info()[0], time.perf_counter()
        seconds = plain(self)
        torch.cuda.synchronize()
        taken["seconds"] = time.perf_counter() - began
        taken["bytes"] = before - torch.cuda.mem_get_info()[0]
        return seconds

    Programs.capture = watched
    try:
        engine = build(2048, scheduling={"max_num_seqs": 256})
    finally:
        Programs.capture = plain
    yield "capture of ten sizes", dict(taken)
    close(engine)
