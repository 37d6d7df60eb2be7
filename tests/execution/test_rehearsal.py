"""What runs before a device serves, so that nothing is compiled while it does."""

from __future__ import annotations

import pytest

from rtp_core.api import EngineLimits
from rtp_core.engine.device_memory import _SMALL, _SMALL_BLOCKS, _fits, _largest, _prompts


def limits(**changes):
    known = {
        "max_model_len": 100,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 250,
        "block_size": 16,
        "max_draft_tokens": 0,
    }
    return EngineLimits(**{**known, **changes})


def test_the_largest_step_fills_the_budget():
    plan, blocks = _largest(limits(), 2)
    assert [len(row.token_ids) for row in plan.rows] == [100, 100, 50]
    held = [block for row in plan.rows for block in row.block_tables[1]]
    assert held == list(range(1, blocks))
    assert {start.sequence_id for start in plan.started} <= set(plan.released)


@pytest.mark.parametrize("block_size", [1, 8, 32])
def test_small_steps_stay_inside_the_small_pool(block_size):
    for counts in _SMALL:
        _, blocks = _prompts(counts, block_size, 1)
        assert blocks <= _SMALL_BLOCKS


def test_small_steps_that_break_a_bound_are_left_out():
    assert _fits((40,), limits())
    assert not _fits((5,) * 16, limits())
    assert not _fits((40,), limits(max_model_len=39))
    assert not _fits((24, 40, 40), limits(max_num_batched_tokens=103))
