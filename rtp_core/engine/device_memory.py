"""What a model takes of a GPU: expected before the weights are read, measured after."""

from __future__ import annotations

import gc

import torch

from rtp_core.api import (
    AttentionBackend,
    BoundAttention,
    EngineLimits,
    KVMemory,
    KVStore,
    ModelSpec,
    PlanRow,
    SamplingParams,
    SequenceStart,
    StepPlan,
)
from rtp_core.engine.capacity import DeviceMemory
from rtp_core.execution.device.build import Placed, build_runner

RESERVE = 512 * 2**20
"""Bytes for captured programs, libraries' work space and fragments."""


def expected_memory(spec: ModelSpec, limits: EngineLimits, weights_bytes: int) -> DeviceMemory:
    """From shapes: the widest activations of one layer, and logits of every sequence."""
    free, total = torch.cuda.mem_get_info()
    widest = 4 * spec.hidden_size + 3 * spec.intermediate_size
    activations = 2 * limits.max_num_batched_tokens * widest
    logits = 3 * 4 * limits.max_num_seqs * spec.vocab_size
    others = total - free - torch.cuda.memory_reserved()
    return DeviceMemory(total, weights_bytes + others, activations + logits + RESERVE)


def measured_memory(placed: Placed, backend: AttentionBackend, store: KVStore) -> DeviceMemory:
    """The same once the weights are there: one step of as many tokens as a step may have.

    Before that, all kernels that steps need are compiled.
    """
    spec, limits, device = placed.spec, placed.limits, placed.accelerator.device
    plan, num_blocks = _largest(limits, len(spec.kv_groups))
    counts = [num_blocks] * len(spec.kv_groups)
    memory = store.open(spec.kv_groups, counts, limits.block_size, device)
    peak = _peak(placed, backend.bind(spec, memory, limits.block_size), memory, plan)
    del memory
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return DeviceMemory(total, total - free, peak + RESERVE)


def _peak(placed: Placed, attention: BoundAttention, memory: KVMemory, plan: StepPlan) -> int:
    """Bytes that a step works in."""
    runner, programs = build_runner(placed, attention, memory, frozenset())

    def everything() -> None:
        programs.rehearse()
        runner.launch(plan)()

    placed.accelerator.prepare(everything)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    runner.launch(plan)()
    return torch.cuda.max_memory_allocated() - before


def _largest(limits: EngineLimits, num_groups: int) -> tuple[StepPlan, int]:
    """Prompts that fill a step, and how many blocks they lie in."""
    rows: list[PlanRow] = []
    starts: list[SequenceStart] = []
    left, block = limits.max_num_batched_tokens, 1  # block 0 is the spare one
    greedy = SamplingParams(temperature=0.0)
    while left and len(rows) < limits.max_num_seqs:
        count = min(left, limits.max_model_len)
        table = range(block, block - (-count // limits.block_size))
        name = f"probe/{len(rows)}"
        rows.append(PlanRow(name, [0] * count, 0, 0, True, (table,) * num_groups))
        starts.append(SequenceStart(name, greedy, 0, 0, (0,) * count, count))
        left, block = left - count, table.stop
    released = tuple(row.sequence_id for row in rows)  # of the run before
    return StepPlan(0, tuple(rows), tuple(starts), released), block
