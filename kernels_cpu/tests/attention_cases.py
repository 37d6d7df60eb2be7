"""Rows, planes and inputs of attention."""

from __future__ import annotations

import random

import torch

from rtp_kernels.paged_attention.plan import Geometry, Row
from rtp_kernels.paged_attention.rotary import rotary_tables
from rtp_kernels_cpu.attention_plan import plan_rows

SLOTS = 4096


def geometry_of(group=3, dim=64, kv_heads=2, window=None, block=16):
    return Geometry(group * kv_heads, kv_heads, dim, block, dim**-0.5, window)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).bfloat16()


def planes_of(geometry, seed=5):
    """Filled memory, cut out of a larger tensor so that heads are not adjacent."""
    shape = (geometry.num_kv_heads, SLOTS + 7, geometry.head_dim)
    return tuple(normal(*shape, seed=seed + k)[:, :SLOTS] for k in range(2))


def plan_of(rows, geometry, rotary=None):
    rotary = rotary or geometry.head_dim
    positions = [row.start + new for row in rows for new in range(row.num_new)]
    inv_freq = 10000.0 ** (-torch.arange(0, rotary, 2) / rotary)
    tables = rotary_tables(inv_freq, torch.tensor(positions), torch.float32)
    return plan_rows(rows, geometry.block_size, *tables)


def run_of(length, first, block=16):
    """Adjacent blocks for `length` keys."""
    return list(range(first, first - (-length // block)))


def scattered(length, seed=1, block=16):
    """Blocks in no order."""
    return random.Random(seed).sample(range(SLOTS // block), -(-length // block))


def qkv_for(plan, geometry, seed=9):
    heads = geometry.num_heads + 2 * geometry.num_kv_heads
    return normal(plan.num_tokens, heads * geometry.head_dim, seed=seed)


ROWS = {
    "one key": [Row(0, 1, [3])],
    "decode": [Row(40, 1, run_of(41, 2))],
    "decode, long": [Row(1500, 1, run_of(1501, 2))],
    "decode, scattered": [Row(700, 1, scattered(701))],
    "split just full": [Row(255, 1, run_of(256, 4))],
    "split just begun": [Row(256, 1, scattered(257))],
    "ragged": [
        Row(0, 1, [9]),
        Row(300, 1, run_of(301, 100)),
        Row(17, 1, [40, 7]),
        Row(63, 1, scattered(64, 2)),
    ],
    "drafts": [Row(50, 5, run_of(55, 9))],
    "drafts across splits": [Row(253, 8, scattered(261))],
    "drafts of several": [Row(30, 4, scattered(34)), Row(500, 8, run_of(508, 60))],
    "prefill": [Row(0, 70, run_of(70, 1))],
    "mixed": [Row(0, 20, run_of(20, 1)), Row(63, 1, [9, 7, 8, 30]), Row(90, 4, run_of(94, 33))],
    "tree": [Row(21, 6, run_of(27, 3), [-1, 0, 0, 1, 2, 2])],
    "tree beside a chain": [Row(140, 4, scattered(144), [-1, -1, 0, 1]), Row(9, 2, [2])],
    "computes only": [Row(20, 1, run_of(21, 2), writes=False)],
    "some write": [Row(20, 2, run_of(22, 2), writes=False), Row(5, 3, [10])],
}
