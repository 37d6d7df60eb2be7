"""What a measurement takes from inside an engine: its programs, bare and recorded anew."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from rtp_core.engine.core import EngineCore
from rtp_core.execution.device.accelerator import CudaAccelerator
from rtp_core.execution.device.programs import LADDER, Programs

_ROUNDS, _REPLAYS = 5, 8


def programs_of(engine: EngineCore) -> Programs:
    """Those of an engine on a GPU."""
    runner: Any = engine._runner
    return runner._programs


def set_speculator(engine: EngineCore, speculator: object) -> None:
    """In the place of the one drafter that the engine was built with."""
    drafters: Any = engine._speculation._speculators
    (name,) = drafters
    drafters[name] = speculator


@torch.inference_mode()
def replay_seconds(engine: EngineCore, rows: int, new_tokens: int, bound: int) -> float:
    """A program by itself, on the input of the step that ran last; without drawing.

    It writes keys and values of that step once more, which only random texts may suffer.
    """
    programs = programs_of(engine)
    limits, sizes = programs.limits, programs._sizes
    size = next(size for size in sizes if size >= rows)
    captured = programs._captured[size, new_tokens, limits.context_of(bound)]
    torch.cuda.synchronize()
    return statistics.median(_timed(captured.replay) for _ in range(_ROUNDS))


def _timed(replay: Callable[[], None]) -> float:
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    replay()
    began.record()
    for _ in range(_REPLAYS):
        replay()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1e3 / _REPLAYS


@torch.inference_mode()
def capture_cost(engine: EngineCore, context: int) -> dict[str, float]:
    """Seconds and bytes of the device to record ten sizes anew, into memory of their own."""
    programs = programs_of(engine)
    sizes = [size for size in LADDER if size <= programs.limits.max_rows]
    bound = programs.limits.context_of(context)
    accelerator = CudaAccelerator("cuda", 1)
    torch.cuda.synchronize()
    before, began = torch.cuda.mem_get_info()[0], time.perf_counter()
    kept = [
        accelerator.capture(lambda size=size: programs._decode(size, 1, bound))
        for size in reversed(sizes)
    ]
    torch.cuda.synchronize()
    seconds, taken = time.perf_counter() - began, before - torch.cuda.mem_get_info()[0]
    return {"sizes": len(kept), "seconds": seconds, "device_mb": taken / 1e6}
