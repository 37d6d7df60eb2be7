"""What a model takes of a GPU: expected before the weights are read, measured after."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from rtp_core.api import (
    AttentionBackend,
    EngineLimits,
    KVStore,
    ModelSpec,
    PlanRow,
    SamplingParams,
    SequenceStart,
    StepPlan,
)
from rtp_core.engine.capacity import DeviceMemory
from rtp_core.engine.services import Stopwatch
from rtp_core.errors import CapacityError
from rtp_core.execution.device.build import Placed, build_runner
from rtp_core.execution.device.runner import DeviceRunner

RESERVE = 512 * 2**20
"""Bytes for captured programs, libraries' work space and fragments."""

_SMALL = ((40,), (24, 40, 40), (1, 1, 40), (5,) * 16)
"""Tokens of the prompts of small steps: their kernels are others than a large step's."""
_SMALL_BLOCKS = 1 + max(map(sum, _SMALL))
"""More than they lie in, whatever the size of a block."""
_PROBES = tuple(f"probe/{number}" for number in range(1024))
"""Names of probing sequences; each step releases those of the one before."""


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raises CapacityError where the device's memory runs out all the same."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        words = ". ".join(str(error).split(". ")[:3])
        raise CapacityError(
            f"the GPU's memory ran out while the engine was built: {words}",
            remedy="take other programs off the GPU, lower --gpu-memory-utilization or "
            "--max-num-batched-tokens, or serve a smaller model",
        ) from error


def expected_memory(spec: ModelSpec, limits: EngineLimits, weights_bytes: int) -> DeviceMemory:
    """From shapes: the widest activations of one layer, and logits of every sequence."""
    free, total = torch.cuda.mem_get_info()
    widest = 4 * spec.hidden_size + 3 * spec.intermediate_size
    activations = 2 * limits.max_num_batched_tokens * widest
    logits = 3 * 4 * limits.max_num_seqs * spec.vocab_size
    others = total - free - torch.cuda.memory_reserved()
    return DeviceMemory(total, weights_bytes + others, activations + logits + RESERVE)


def measured_memory(placed: Placed, backend: AttentionBackend, store: KVStore) -> DeviceMemory:
    """The same once the weights are there: one step of as many tokens as a step may have."""
    plan, runner = _on_a_small_pool(placed, backend, store)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    runner.launch(plan)()
    peak = torch.cuda.max_memory_allocated() - before
    del runner
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return DeviceMemory(total, total - free, peak + RESERVE)


def rehearse(placed: Placed, backend: AttentionBackend, store: KVStore, watch: Stopwatch) -> None:
    """Compile and load all kernels that steps need; weights need not be there.

    Answers mean nothing, and nothing that is run here depends on one.
    """
    limits, num_groups = placed.limits, len(placed.spec.kv_groups)
    plan, runner = _on_a_small_pool(placed, backend, store)

    def everything() -> None:
        runner.rehearse(limits.max_num_seqs)
        for counts in _SMALL:
            if _fits(counts, limits):
                runner.launch(_prompts(counts, limits.block_size, num_groups)[0])()
        runner.launch(plan)()

    compiled = placed.accelerator.prepare(everything, f"{placed.spec!r} {limits!r}")
    watch.lap("compiling", note=f"{compiled} kernels" if compiled else "done at an earlier start")
    everything()
    watch.lap("kernels")


def _on_a_small_pool(
    placed: Placed, backend: AttentionBackend, store: KVStore
) -> tuple[StepPlan, DeviceRunner]:
    """The largest step, and a runner with room for it."""
    spec, limits, device = placed.spec, placed.limits, placed.accelerator.device
    plan, num_blocks = _largest(limits, len(spec.kv_groups))
    counts = [max(num_blocks, _SMALL_BLOCKS)] * len(spec.kv_groups)
    memory = store.open(spec.kv_groups, counts, limits.block_size, device)
    attention = backend.bind(spec, memory, limits.block_size)
    return plan, build_runner(placed, attention, memory, frozenset())[0]


def _fits(counts: Sequence[int], limits: EngineLimits) -> bool:
    return (
        len(counts) <= limits.max_num_seqs
        and max(counts) <= limits.max_model_len
        and sum(counts) <= limits.max_num_batched_tokens
    )


def _largest(limits: EngineLimits, num_groups: int) -> tuple[StepPlan, int]:
    """Prompts that fill a step, and how many blocks they lie in."""
    left, counts = limits.max_num_batched_tokens, []
    while left and len(counts) < limits.max_num_seqs:
        counts.append(min(left, limits.max_model_len))
        left -= counts[-1]
    return _prompts(counts, limits.block_size, num_groups)


def _prompts(counts: Sequence[int], block_size: int, num_groups: int) -> tuple[StepPlan, int]:
    """A step of prompts of so many tokens, and how many blocks they lie in."""
    rows: list[PlanRow] = []
    starts: list[SequenceStart] = []
    block = 1  # block 0 is the spare one
    for number, count in enumerate(counts):
        table = range(block, block - (-count // block_size))
        name = f"probe/{number}"
        rows.append(PlanRow(name, [0] * count, 0, 0, True, (table,) * num_groups))
        greedy = SamplingParams(temperature=0.0)
        starts.append(SequenceStart(name, greedy, 0, 0, (0,) * count, count))
        block = table.stop
    return StepPlan(0, tuple(rows), tuple(starts), _PROBES), block
