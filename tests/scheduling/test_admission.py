from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rtp_core.api import FinishReason
from rtp_core.errors import RequestError

sys.path.insert(0, str(Path(__file__).parent))
from paged_world import World, next_token


def refused(world, *args, **fields):
    with pytest.raises(RequestError) as caught:
        world.submit(*args, **fields)
    assert not world.scheduler.has_work
    assert world.scheduler.num_waiting == 0
    return caught.value


def test_an_empty_prompt_is_refused():
    error = refused(World(), "a", [])
    assert (error.param, error.status) == ("prompt", 400)
    assert "at least one token" in error.remedy


def test_more_than_the_context_is_refused_in_the_words_clients_know():
    error = refused(World(num_blocks=99, max_model_len=20), "a", [0] * 15, max_tokens=6)
    assert (error.param, error.code) == ("prompt", "context_length_exceeded")
    assert "maximum context length is 20 tokens" in error.message
    assert "15 tokens of prompt and 6 of completion" in error.message
    assert "max_tokens" in error.remedy


def test_more_than_the_pool_is_refused_at_once_with_field_and_remedy():
    error = refused(World(num_blocks=4, max_model_len=64), "a", [0] * 12, max_tokens=5)
    assert (error.param, error.code) == ("prompt", "context_length_exceeded")
    assert "17 tokens cannot ever fit the KV cache of 16 tokens" in error.message
    assert "kv.memory" in error.remedy


@pytest.mark.parametrize(("num_blocks", "max_model_len"), [(4, 16), (4, 64), (99, 16)])
def test_what_just_fits_runs_to_its_end(num_blocks, max_model_len):
    world = World(num_blocks=num_blocks, max_model_len=max_model_len)
    world.submit("a", [0] * 12, max_tokens=4)
    world.submit("b", [1] * 12, max_tokens=None)
    world.drain()
    for request in ("a", "b"):
        tokens, reason = world.answer(request)
        assert (len(tokens), reason) == (4, FinishReason.LENGTH)


def test_a_request_id_is_taken_until_its_last_choice_has_ended():
    world = World()
    world.submit("a", [0] * 5, n=2)
    world.step()
    world.scheduler.abort("a", 0)
    with pytest.raises(RequestError, match="'a' is under way"):
        world.scheduler.add(world.requests["a"])
    world.drain()
    world.scheduler.add(world.requests["a"])
    assert world.scheduler.num_waiting == 2


def test_no_tokens_wanted_ends_without_a_step():
    world = World()
    world.submit("a", [0] * 5, max_tokens=0, n=2)
    assert world.scheduler.has_work
    events = world.step()
    assert [(event.choice, event.finish_reason) for event in events] == [
        (0, FinishReason.LENGTH),
        (1, FinishReason.LENGTH),
    ]
    assert world.runner.forwards == 0
    assert not world.scheduler.has_work


def test_choices_draw_their_own_tokens_from_a_prompt_computed_once():
    world = World(num_blocks=64, max_num_seqs=8, max_num_batched_tokens=64)
    world.submit("a", [0, 1, 2] * 7, n=4, seed=5, max_tokens=12)
    world.drain()
    answers = {tuple(world.answer("a", choice)[0]) for choice in range(4)}
    assert len(answers) == 4
    prompt = [world.runner.computed[f"a/{choice}"] - 11 for choice in range(4)]
    assert sorted(prompt) == [1, 1, 1, 21]


def test_a_missing_seed_is_drawn_once_a_request():
    world = World(max_num_batched_tokens=20)
    for request_id in ("a", "b"):
        world.submit(request_id, [0] * 3, n=2, seed=None)
    seeds = {start.sequence_id: start.seed for start in world.scheduler.schedule().started}
    assert seeds["a/0"] == seeds["a/1"] != seeds["b/0"] == seeds["b/1"]
    assert all(0 <= seed < 2**64 for seed in seeds.values())


def test_a_negative_seed_becomes_the_unsigned_key_of_the_noise():
    world = World()
    world.submit("a", [0], seed=-1)
    (start,) = world.scheduler.schedule().started
    assert start.seed == 2**64 - 1


def test_a_request_waits_for_all_its_conditions_and_keeps_its_place():
    world = World(max_num_seqs=1)
    world.submit("late", [0] * 3, max_tokens=2, waits_for=frozenset({"grammar", "kv:1"}))
    world.step()
    assert not world.scheduler.has_work
    assert world.scheduler.num_waiting == 1
    world.submit("x", [1] * 3, max_tokens=4)
    world.submit("y", [2] * 3, max_tokens=2)
    world.step()
    world.scheduler.met("late", "grammar")
    world.scheduler.met("late", "no such condition")
    world.scheduler.met("nobody", "grammar")
    world.step()
    assert world.answer("late") == ([], None)
    world.scheduler.met("late", "kv:1")
    world.drain()
    assert list(world.ended) == [("x", 0), ("late", 0), ("y", 0)]


def test_admission_keeps_the_watermark_free_while_others_run():
    world = World(num_blocks=10, watermark=0.3, max_num_batched_tokens=64)
    world.submit("a", [0] * 16, max_tokens=4)
    world.submit("b", [1] * 13, max_tokens=1)  # would leave 2 blocks, 3 are to stay free
    world.submit("c", [2], max_tokens=1)
    world.step()
    assert world.scheduler.num_running == 1, "nobody overtakes the first that does not fit"
    world.drain()
    assert world.scheduler.counters.preemptions == 0
    alone = World(num_blocks=10, watermark=0.9)
    alone.submit("big", [0] * 36, max_tokens=4)
    alone.drain()
    assert alone.answer("big")[1] is FinishReason.LENGTH


def test_batch_and_token_limits_bound_every_step():
    world = World(num_blocks=64, max_num_seqs=3, max_num_batched_tokens=7)
    for number in range(6):
        world.submit(str(number), [number % 3] * (4 + number), max_tokens=5, seed=number)
    world.step()
    assert world.plans[0].num_tokens == 7
    world.drain()  # World checks each plan
    assert max(len(plan.rows) for plan in world.plans) == 3


def test_the_model_of_these_tests_is_not_trivial():
    drawn = {next_token([0] * length, seed, 0) for length in range(1, 9) for seed in range(3)}
    assert drawn == {0, 1, 2}
