"""How fast a decode step of a GPU could be at best: what it must read, at the rate of a copy."""

from __future__ import annotations

import time
from typing import Any

from rtp_core.api import ExpertsSpec, ParameterSpec, Shard
from rtp_core.bench.summary import Summary
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.capacity import weight_bytes
from rtp_core.engine.devices import pick_device
from rtp_core.engine.prepare import Prepared

_COPIED = 2**28
"""Bytes of a buffer: several times any cache."""
_COPIES, _ROUNDS = 8, 5


def copy_rate(config: EngineConfig) -> float | None:
    """Bytes a second that the GPU reads and writes when it copies; None if a CPU would serve.

    Asked before the engine takes the memory.
    """
    if pick_device(config.model.device) == "cpu":
        return None
    import torch

    source, target = (torch.ones(_COPIED, dtype=torch.uint8, device="cuda") for _ in range(2))
    times: list[float] = []
    for _ in range(_ROUNDS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(_COPIES):
            target.copy_(source)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    del source, target
    torch.cuda.empty_cache()
    return 2 * _COPIED * _COPIES / min(times)


def step_bytes(prepared: Prepared, batch: int, context: int) -> float:
    """Bytes that a decode step of `batch` texts of `context` tokens reads: weights once, and every
    text's keys and values. An embedding that is no head's weight is hardly read; of experts
    those count that `batch` tokens choose if all are chosen equally often.
    """
    spec, size = prepared.spec, prepared.budget.block_size
    read = 0.0
    for one in prepared.plan.parameters:
        if one.name != "embed" or spec.tied_head:
            read += weight_bytes([one]) * _share_read(one, spec.experts, batch)
    for group in spec.kv_groups:
        seen = min(context, group.sliding_window or context)
        read += batch * seen * prepared.store.block_bytes(group, size) / size
    return read


def roofline(num_bytes: float, bytes_per_s: float, step_s: Summary) -> dict[str, Any]:
    """``roofline_step_s``, and as ``roofline_fraction`` its part of the median step."""
    best, median = num_bytes / bytes_per_s, step_s["median"]
    return {"roofline_step_s": best, "roofline_fraction": best / median if median else None}


def _share_read(parameter: ParameterSpec, experts: ExpertsSpec | None, batch: int) -> float:
    if experts is None or parameter.shard is not Shard.EXPERTS:
        return 1.0
    return 1.0 - (1.0 - experts.top_k / experts.num_experts) ** batch
