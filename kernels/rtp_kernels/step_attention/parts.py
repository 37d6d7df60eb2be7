"""Which rows of a step cuDNN attends to, and which the kernel over pages.

Measured on an H200 (32 heads, 8 KV heads of 128, bfloat16), launched one by one: a whole prompt of
8,192 tokens took 0.91 ms with cuDNN and 1.51 ms over pages, sixteen of 1,024 took 0.29 and 0.52 ms,
one of 1,024 took 0.05 and 0.07 ms, 2,048 tokens after 6,144 took 0.50 and 0.69 ms (merged in half
precision then; in float32, as now, not timed yet). Odd ends (`MIN_HEAD`) are estimated from these.
A call has a fixed cost, so
small ones stay with the kernel. So do shapes that seldom come back: cuDNN makes a plan for each
new one, which takes 35 ms. With 8,192 tokens a step these rules allow 55 shapes of whole prompts
and, with texts up to 32,768, about as many of chunks.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from rtp_kernels.paged_attention import dense
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.step_attention.reference import Runs

FINE_STEP, FINE_LENGTH = 256, 8192
"""Whole prompts are cuDNN's in multiples of so many tokens up to that length,"""
MIN_LENGTH = 512
"""from this many on, in calls of at least"""
MIN_TOKENS = 1024
MIN_HEAD = 4096
"""Of other lengths, cuDNN takes the first tokens if there are so many; the kernel takes the rest,
which costs it a launch of its own."""
COARSE_STEP = 2048
"""Longer prompts and, after a prefix, both lengths are multiples of this,"""
MAX_PREFIX = 32768
"""and the prefix, which is copied, is no longer than this."""


@dataclass(frozen=True, slots=True)
class Part:
    """`rows` consecutive rows from `first_row` on, whose tokens start at `first_token`.

    cuDNN attends to `length` tokens of each, after `prefix` cached ones, if `length` is not 0.
    Otherwise the kernel does; it leaves out the first `skip` tokens of a single row.
    """

    first_row: int
    rows: int
    first_token: int
    tokens: int
    length: int = 0
    prefix: int = 0
    skip: int = 0


@functools.lru_cache(maxsize=64)
def cut(runs: Runs, geometry: Geometry) -> tuple[Part, ...]:
    """Parts in the order of rows; neighbours of equal shape share a call."""
    parts: list[Part] = []
    row = token = 0
    while row < len(runs):
        new, cached = runs[row]
        head, count = _dense_tokens(new, cached, geometry), 1
        if head == new and not cached:
            count = _equal_rows(runs, row)
        if head and count * head >= MIN_TOKENS:
            parts.append(Part(row, count, token, count * head, head, cached))
            if head < new:
                parts.append(Part(row, 1, token + head, new - head, skip=head))
        else:
            count = 1
            _extend(parts, Part(row, 1, token, new))
        row += count
        token += count * new
    return tuple(parts)


def _dense_tokens(new: int, cached: int, geometry: Geometry) -> int:
    """How many of a row's first new tokens cuDNN may take."""
    if not dense.suits(geometry, cached + new):
        return 0
    if cached % COARSE_STEP or cached > MAX_PREFIX:
        return 0
    step = COARSE_STEP if cached or new > FINE_LENGTH else FINE_STEP
    head = new // step * step
    return head if head >= (MIN_LENGTH if head == new else MIN_HEAD) else 0


def _equal_rows(runs: Runs, row: int) -> int:
    """Rows from `row` on that are all alike, cut to a power of two: a batch is a shape too."""
    alike = 1
    while row + alike < len(runs) and runs[row + alike] == runs[row]:
        alike += 1
    return 1 << alike.bit_length() - 1


def _extend(parts: list[Part], more: Part) -> None:
    """The kernel takes all its neighbouring rows at once."""
    last = parts[-1] if parts else None
    if last is None or last.length or last.skip:
        parts.append(more)
    else:
        joined = last.rows + 1, last.first_token, last.tokens + more.tokens
        parts[-1] = Part(last.first_row, *joined)
