"""Random weights of a model's shape, for measurements on machines without its checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from rtp_core.api import (
    LoadStats,
    ParameterSpec,
    Placement,
    TensorInfo,
    WeightPlan,
    WeightSink,
    WeightTable,
)

SPREAD = 0.02
"""Standard deviation of matrices; vectors, which are norms and biases, are close to one."""
_POOL = 2**24
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def dummy_plan(table: WeightTable) -> WeightPlan:
    """Every rule filled by a tensor that no file holds."""
    parameters = {one.name: one for one in table.parameters}
    placements = []
    for rule in table.rules:
        into = parameters[rule.destination]
        shape = (rule.num_rows, *into.shape[1:])
        num_bytes = math.prod(shape) * _BYTES[into.dtype]
        tensor = TensorInfo(rule.source, "", 0, num_bytes, shape, _NAMES[into.dtype])
        placements.append(Placement(tensor, rule))
    return WeightPlan(table.parameters, tuple(placements), {})


class DummyLoader:
    """`api.WeightLoader` without files: pieces of one pool of random numbers, the same each time.

    Neighbouring weights differ; far apart they repeat, which no measurement of speed can tell.
    """

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        began = time.perf_counter()
        parameters = {one.name: one for one in plan.parameters}
        pools: dict[tuple[str, bool], torch.Tensor] = {}
        done = 0
        for number, placement in enumerate(plan.placements):
            into = parameters[placement.rule.destination]
            key = into.dtype, len(into.shape) > 1
            if key not in pools:
                pools[key] = _pool(into)
            sink.place(placement, _piece(pools[key], placement.tensor.num_bytes, number))
            done += placement.tensor.num_bytes
            progress(placement.tensor.num_bytes)
        return LoadStats("dummy", done, time.perf_counter() - began)


def _pool(parameter: ParameterSpec) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(_POOL, generator=generator).mul_(SPREAD)
    if len(parameter.shape) == 1:
        values += 1.0
    return values.to(getattr(torch, parameter.dtype))


def _piece(pool: torch.Tensor, num_bytes: int, number: int) -> memoryview:
    """`num_bytes` of the pool over and over, from a place that depends on `number`."""
    count = num_bytes // pool.element_size()
    start = number * 7919 % (pool.numel() // 2)
    tail = pool[start:]
    repeats = -(-count // tail.numel())
    whole = tail.repeat(repeats)[:count] if repeats > 1 else tail[:count]
    return whole.contiguous().view(torch.uint8).numpy().data
