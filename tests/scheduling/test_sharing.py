from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from paged_world import World, claims

PROMPT = [0, 1, 2, 2, 1] * 8  # 40 tokens, 10 blocks
WIDE = {"num_blocks": 400, "max_num_seqs": 16, "max_num_batched_tokens": 64}


def steps_of_one():
    world = World(**WIDE)
    world.submit("one", PROMPT, max_tokens=20)
    world.drain()
    return len(world.plans)


def test_eight_equal_requests_cost_little_more_than_one():
    world = World(**WIDE)
    for number in range(8):
        world.submit(str(number), PROMPT, max_tokens=20)
    world.drain()
    assert len(world.plans) <= 1.2 * steps_of_one()
    assert world.runner.forwards == len(world.plans)
    assert len({tuple(world.answer(str(number))[0]) for number in range(8)}) == 1


def test_of_equal_prompts_in_flight_the_shared_part_is_computed_once():
    world = World(**WIDE)
    for number in range(8):
        world.submit(str(number), [*PROMPT, number % 3, 1], max_tokens=1, seed=number)
    world.drain()
    lengths = sorted(world.runner.computed.values())
    assert lengths == [2] * 7 + [42]
    assert world.scheduler.counters.prefix_hits == 7 * 40


def test_a_prompt_computed_in_chunks_is_followed_to_its_end():
    world = World(num_blocks=400, max_num_seqs=4, max_num_batched_tokens=8)
    for request_id in ("a", "b"):
        world.submit(request_id, PROMPT, max_tokens=1)
    world.drain()
    assert world.runner.computed["a/0"] == 40
    assert world.runner.computed["b/0"] == 4  # its last block: a hit leaves a token to compute


def test_who_has_something_else_to_do_is_not_held_up_by_those_who_wait():
    world = World(**WIDE)
    world.submit("owner", PROMPT, max_tokens=4)
    world.submit("follower", PROMPT, max_tokens=4)
    world.submit("other", [2] * 12, max_tokens=4)
    world.step()
    assert [row.sequence_id for row in world.plans[0].rows] == ["owner/0", "other/0"]


def test_followers_of_an_aborted_owner_compute_for_themselves():
    world = World(num_blocks=400, max_num_seqs=4, max_num_batched_tokens=8)
    for request_id in ("a", "b", "c"):
        world.submit(request_id, PROMPT, max_tokens=3)
    world.step()
    assert claims(world.scheduler)
    world.scheduler.abort("a")
    world.drain()
    assert world.runner.computed["b/0"] == 40 - 8 + 2
    assert world.runner.computed["c/0"] == 4 + 2
    assert not claims(world.scheduler)


def test_followers_of_a_failed_owner_compute_for_themselves():
    world = World(num_blocks=400, max_num_seqs=4, max_num_batched_tokens=8)
    for request_id in ("a", "b"):
        world.submit(request_id, PROMPT, max_tokens=3)
    world.step()
    world.step(fail=lambda plan: ["a/0"])
    world.drain()
    assert world.runner.computed["b/0"] == 40 + 2
    assert world.answer("b")[0] == world.truth("b")[0]


def test_followers_of_a_preempted_owner_are_free():
    world = World(num_blocks=13, max_num_seqs=4, max_num_batched_tokens=8)
    world.submit("old", [2] * 10, max_tokens=24)
    world.step()
    world.clock.time_s += 1
    for request_id in ("a", "b"):
        world.submit(request_id, PROMPT[:36], max_tokens=3)
    world.drain()
    assert world.scheduler.counters.preemptions > 0
    assert not claims(world.scheduler)


def test_one_shared_block_is_not_worth_waiting_for():
    world = World(**WIDE)
    world.submit("a", [0, 1, 2, 0, 1, 1, 1, 1, 1], max_tokens=1)
    world.submit("b", [0, 1, 2, 0, 2, 2, 2, 2, 2], max_tokens=1)
    world.step()
    assert len(world.plans[0].rows) == 2


def test_tenants_do_not_wait_for_each_other():
    world = World(**WIDE | {"max_num_batched_tokens": 200})
    world.submit("a", PROMPT, tenant="a")
    world.submit("b", PROMPT, tenant="b")
    world.submit("c", PROMPT, tenant="a", cache_salt="private")
    world.step()
    assert len(world.plans[0].rows) == 3
    world.drain()
    assert world.scheduler.counters.prefix_hits == 0


def test_without_prefix_caching_nobody_waits():
    world = World(**WIDE | {"prefix_caching": False, "max_num_batched_tokens": 200})
    for number in range(3):
        world.submit(str(number), PROMPT, max_tokens=2)
    world.step()
    assert len(world.plans[0].rows) == 3
    world.drain()
    assert world.scheduler.counters.prefix_queries == 0


def test_a_conversation_goes_on_where_it_stopped():
    world = World(**WIDE)
    world.submit("first", PROMPT, max_tokens=11)
    world.drain()
    history = [*PROMPT, *world.answer("first")[0]]  # 51 tokens; the last has no KV
    world.submit("second", [*history, 1, 1], max_tokens=2)
    events = world.step()
    assert events[0].num_cached_tokens == 48
    world.drain()
    assert world.scheduler.counters.prefix_queries == 40 + 53
