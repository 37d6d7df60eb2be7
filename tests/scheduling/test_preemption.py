from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rtp_core.api import Draft, FinishReason
from rtp_core.scheduling.policies import ArrivalPolicy, PriorityPolicy

sys.path.insert(0, str(Path(__file__).parent))
from paged_world import World, right


@pytest.mark.parametrize("policy", [ArrivalPolicy, PriorityPolicy])
@pytest.mark.parametrize("prefix_caching", [True, False])
def test_two_hundred_requests_pass_through_a_pool_that_holds_five(policy, prefix_caching):
    world = World(
        num_blocks=40,  # five requests of 8 blocks
        max_num_seqs=32,
        max_num_batched_tokens=64,
        watermark=0.05,
        prefix_caching=prefix_caching,
        policy=policy(),
    )
    for number in range(200):
        world.submit(
            f"r{number}",
            [number % 3, number // 3 % 3, number // 9 % 3, number // 27 % 3, 0, number % 2],
            max_tokens=26,
            seed=number,
            priority=number % 2,
        )
    world.drain(most=8000)
    assert len(world.ended) == 200
    assert set(world.ended.values()) == {FinishReason.LENGTH}
    assert world.scheduler.counters.preemptions > 0
    world.check()
    world.check_empty()


def crowded(**changes):
    """Two requests that fit at first and cannot both grow; the second is younger."""
    world = World(num_blocks=6, max_num_batched_tokens=32, **changes)
    world.submit("old", [0] * 8, max_tokens=12)
    world.clock.time_s += 1
    world.submit("young", [1] * 8, max_tokens=12)
    return world


def test_the_youngest_gives_way_and_goes_on_where_it_was():
    world = crowded()
    world.drain()
    counters = world.scheduler.counters
    assert counters.preemptions == 1
    assert list(world.ended) == [("old", 0), ("young", 0)]
    starts = [start for plan in world.plans for start in plan.started]
    assert [start.sequence_id for start in starts] == ["old/0", "young/0", "young/0"]
    again = starts[2]
    assert again.num_prompt_tokens == 8
    assert len(again.token_ids) > 8
    # World compared each event with the plain answer: nothing was emitted twice
    assert counters.generation_tokens == 24
    assert counters.prompt_tokens == 16


def test_a_preempted_sequence_is_no_hit_of_the_prefix_cache():
    world = crowded()
    world.drain()
    counters = world.scheduler.counters
    assert (counters.prefix_queries, counters.prefix_hits) == (16, 0)
    assert world.runner.computed["young/0"] < 8 + 12 + 8, "it found most of its own blocks"


def test_the_runner_hears_that_a_preempted_sequence_left():
    world = crowded()
    world.drain()
    released = [name for plan in world.plans for name in plan.released]
    assert released == ["young/0", "old/0"]


def test_drafts_are_given_up_before_anybody_is_preempted():
    world = World(num_blocks=4, max_num_batched_tokens=32)
    world.submit("a", [0] * 7, max_tokens=4)
    world.submit("b", [1] * 7, max_tokens=4)
    world.step()
    world.step(draft=right)  # both have room for their next token, none for a draft
    assert world.scheduler.counters.preemptions == 0
    assert [row.num_drafts for row in world.plans[1].rows] == [0, 0]
    world.drain(draft=right)
    assert world.scheduler.counters.preemptions == 1


def test_nobody_is_admitted_in_a_step_that_preempts():
    policy = PriorityPolicy()
    world = World(num_blocks=6, max_num_batched_tokens=32, max_num_seqs=2, policy=policy)
    world.submit("old", [0] * 8, max_tokens=12)
    world.submit("casual", [1] * 8, max_tokens=12, priority=1)
    world.step()
    world.submit("tiny", [2], max_tokens=4)  # waits for a seat only, and goes before "casual"
    while world.scheduler.counters.preemptions == 0:
        world.step()
    assert [row.sequence_id for row in world.plans[-1].rows] == ["old/0"]
    assert world.scheduler.num_waiting == 2
    world.step()
    assert [start.sequence_id for start in world.plans[-1].started] == ["tiny/0"]
    world.drain()


def test_the_less_urgent_gives_way():
    world = World(num_blocks=6, max_num_batched_tokens=32, policy=PriorityPolicy())
    world.submit("casual", [0] * 8, max_tokens=12, priority=1)
    world.clock.time_s += 1
    world.submit("urgent", [1] * 8, max_tokens=12, priority=0)
    world.drain()
    assert world.scheduler.counters.preemptions == 1
    assert list(world.ended) == [("urgent", 0), ("casual", 0)]


class Perverse(ArrivalPolicy):
    """Always takes the one that would be admitted first."""

    def victim(self, running):
        return min(running, key=self.rank).sequence_id


@pytest.mark.parametrize("num_blocks", [6, 7, 9, 12])
def test_even_a_perverse_policy_cannot_stop_progress(num_blocks):
    world = World(num_blocks=num_blocks, max_num_batched_tokens=16, policy=Perverse())
    for number in range(12):
        world.submit(str(number), [number % 3] * 7, max_tokens=15, seed=number)
    world.drain(most=3000)
    assert len(world.ended) == 12


def test_drafts_and_preemption_together_lose_no_token():
    world = crowded()
    world.drain(draft=lambda row, truth: Draft(tuple(truth[:2])))
    assert set(world.ended.values()) == {FinishReason.LENGTH}
