from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rtp_core.api import (
    Draft,
    FinishReason,
    Request,
    RowResult,
    SamplingParams,
    StepResult,
    StructuredOutput,
    TokenLogprob,
)
from rtp_core.scheduling.policies import ArrivalPolicy
from rtp_core.scheduling.scheduler import first_branch

sys.path.insert(0, str(Path(__file__).parent))
from paged_world import World, partial, right, running, tree, wrong


def rows_of(world):
    return {row.sequence_id: row for row in world.plans[-1].rows}


# ---- tokens chase tokens


def test_decoding_rows_come_before_prefills_and_prefills_before_admissions():
    world = World(num_blocks=64, max_num_seqs=8, max_num_batched_tokens=10)
    world.submit("decoding", [0] * 5, max_tokens=9)
    world.step()
    world.submit("prefilling", [1] * 21, max_tokens=2)
    world.submit("waiting", [2] * 6, max_tokens=2)
    world.step()
    assert [(r.sequence_id, len(r.token_ids)) for r in world.plans[-1].rows] == [
        ("decoding/0", 1),
        ("prefilling/0", 9),
    ]
    world.step()
    assert [len(row.token_ids) for row in world.plans[-1].rows] == [1, 9]
    world.step()
    assert [(r.sequence_id, len(r.token_ids)) for r in world.plans[-1].rows] == [
        ("decoding/0", 1),
        ("prefilling/0", 3),
        ("waiting/0", 6),
    ]
    assert rows_of(world)["prefilling/0"].samples


def test_parts_of_a_prompt_end_at_boundaries():
    world = World(num_blocks=64, max_num_seqs=4, max_num_batched_tokens=13, chunk_alignment=8)
    world.submit("a", [0] * 20, max_tokens=3)
    world.submit("b", [1] * 9, max_tokens=2)
    world.drain()
    chunks = [[len(row.token_ids) for row in plan.rows] for plan in world.plans]
    assert chunks[:3] == [[8], [12], [1, 9]]  # 8 of 13; then all the rest; what fits beside it


def test_a_chunk_that_does_not_reach_the_end_draws_nothing():
    world = World(max_num_batched_tokens=4)
    world.submit("a", [0, 1, 2] * 3, max_tokens=2)
    assert world.step() == ()
    assert world.step() == ()
    assert not world.plans[1].rows[0].samples
    (event,) = world.step()
    assert len(event.token_ids) == 1


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("draft", [None, right, wrong, partial, tree])
def test_the_answer_depends_on_neither_chunks_nor_drafts(budget, draft):
    world = World(max_num_batched_tokens=budget)
    world.submit("a", [0, 1, 2] * 4, max_tokens=15)
    world.drain(draft=draft)
    assert world.answer("a") == world.truth("a")[:2]


def test_plans_tell_the_runner_who_joined_and_who_left():
    world = World()
    world.submit("a", [0] * 3, max_tokens=1)
    world.submit("b", [1] * 3, max_tokens=2)
    world.step()
    world.step()
    first, second = world.plans
    assert [start.sequence_id for start in first.started] == ["a/0", "b/0"]
    assert first.started[0].token_ids == (0, 0, 0)
    assert (first.released, second.started, second.released) == ((), (), ("a/0",))
    assert second.step_id == first.step_id + 1


def test_an_empty_scheduler_has_nothing_to_do():
    world = World()
    assert not world.scheduler.has_work
    assert world.scheduler.schedule() is None
    assert world.scheduler.take_events() == ()
    assert world.scheduler.draft_rows() == []


# ---- drafts


def test_right_drafts_save_steps_and_wrong_ones_cost_none():
    steps = {}
    for draft in (None, right, wrong):
        world = World()
        world.submit("a", [0, 1, 2], max_tokens=20)
        world.drain(draft=draft)
        steps[draft] = len(world.plans)
    assert steps[None] == steps[wrong] == 20
    assert steps[right] == 5  # 1, then 5 + 5 + 5 + 4: no draft of the last token


def test_drafts_never_reach_beyond_the_end():
    world = World(max_draft_tokens=4)
    world.submit("a", [0] * 3, max_tokens=4)
    room = []
    world.drain(draft=lambda row, truth: room.append(row.max_tokens) or Draft())
    assert room == [2, 1]


def test_only_decoding_rows_are_asked_for_drafts():
    world = World(max_num_batched_tokens=4, max_num_seqs=8)
    world.submit("a", [0] * 6, max_tokens=9, tenant="t")
    world.step()
    assert world.scheduler.draft_rows() == []
    world.step()
    (row,) = world.scheduler.draft_rows()
    assert (row.sequence_id, row.max_tokens, row.tenant) == ("a/0", 4, "t")
    assert list(row.token_ids) == [0] * 6 + world.outputs["a", 0]


def test_no_draft_takes_the_next_token_of_another_row():
    world = World(max_num_seqs=4, max_num_batched_tokens=6)
    for number in range(4):
        world.submit(str(number), [number % 3], max_tokens=12, seed=number)
    world.step()
    world.step(draft=right)
    assert [(len(row.token_ids), row.num_drafts) for row in world.plans[-1].rows] == [
        (3, 2),
        (1, 0),
        (1, 0),
        (1, 0),
    ]


def test_a_draft_for_somebody_who_left_is_ignored():
    world = World()
    world.scheduler.set_draft("nobody/0", Draft((1,)))
    world.submit("a", [0], max_tokens=9)
    world.scheduler.set_draft("a/0", Draft((1,)))
    world.step()
    assert world.plans[0].rows[0].num_drafts == 0


@pytest.mark.parametrize(
    ("parents", "branch"),
    [
        (None, [5, 6, 7, 8]),
        ((-1, 0, 1, 2), [5, 6, 7, 8]),
        ((-1, -1, 0, 0), [5, 7]),
        ((-1, -1, 1, 2), [5]),
        ((-1, 0, 0, 1), [5, 6, 8]),
        ((-1, -1, -1, -1), [5]),
    ],
)
def test_of_a_tree_the_first_branch_is_verified(parents, branch):
    assert list(first_branch(Draft((5, 6, 7, 8), parents))) == branch


# ---- ends


def test_a_stop_token_ends_and_is_delivered():
    world = World(eos=frozenset({2}))
    world.submit("a", [0, 1], max_tokens=40)
    world.drain()
    tokens, reason = world.answer("a")
    assert (tokens[-1], reason) == (2, FinishReason.STOP)
    assert 2 not in tokens[:-1]


def test_stop_tokens_count_only_after_min_tokens():
    world = World(eos=frozenset({0, 1, 2}))
    world.submit("a", [0, 1], max_tokens=9, min_tokens=4)
    world.submit("b", [0, 1], max_tokens=9, ignore_eos=True)
    world.submit("c", [0, 1], max_tokens=9, ignore_eos=True, stop_token_ids=(0, 1, 2))
    world.drain(draft=right)
    lengths = [len(world.answer(name)[0]) for name in "abc"]
    assert lengths == [5, 9, 1]


def test_what_was_accepted_beyond_the_end_is_cut_with_its_logprobs():
    world = World(eos=frozenset({7}))
    world.submit("a", [0], max_tokens=9)
    world.step()
    world.scheduler.set_draft("a/0", Draft((5, 7, 5)))
    plan = world.scheduler.schedule()
    drawn = (5, 7, 5, 6)
    logprobs = tuple(TokenLogprob(token, -1.0) for token in drawn)
    result = StepResult(plan.step_id, (RowResult("a/0", drawn, 3, logprobs),))
    (event,) = world.scheduler.commit(plan, result)
    assert event.token_ids == (5, 7)
    assert [one.token_id for one in event.logprobs] == [5, 7]
    assert (event.finish_reason, event.stop_reason) == (FinishReason.STOP, 7)
    assert world.scheduler.counters.generation_tokens == 3


def test_the_last_event_has_the_stations_of_the_request():
    world = World(max_num_seqs=1)
    world.submit("first", [0], max_tokens=2)
    world.submit("a", [0], max_tokens=3)
    arrival = world.clock.time_s
    world.step()
    world.step()
    events = []
    while world.scheduler.has_work:
        events.extend(world.step())
    timing = events[-1].timing
    assert [event.timing for event in events[:-1]] == [None, None]
    assert timing.arrival_s == arrival
    assert timing.scheduled_s == timing.first_token_s == arrival + 0.75
    assert timing.finished_s == arrival + 1.25
    assert world.scheduler.counters.finished == {"length": 2}


def test_an_abort_ends_a_request_wherever_it_is():
    world = World(max_num_seqs=2, max_num_batched_tokens=4)
    world.submit("decoding", [0] * 3, max_tokens=9)
    world.step()
    world.submit("prefilling", [1] * 12, max_tokens=9)
    world.step()
    world.submit("queued", [2] * 3)
    world.submit("held", [2] * 3, waits_for=frozenset({"grammar"}))
    for name in ("decoding", "prefilling", "queued", "held"):
        world.scheduler.abort(name)
        world.scheduler.abort(name)
    events = world.step()
    assert [event.request_id for event in events] == ["decoding", "prefilling", "queued", "held"]
    assert {event.finish_reason for event in events} == {FinishReason.ABORT}
    assert all(event.token_ids == () for event in events)
    assert not world.scheduler.has_work
    assert world.scheduler.num_waiting == 0
    world.check_empty()


def test_one_choice_can_be_aborted_alone():
    world = World(num_blocks=64, max_num_batched_tokens=32)
    world.submit("a", [0] * 3, n=3, max_tokens=4)
    world.step()
    world.scheduler.abort("a", 1)
    world.scheduler.abort("a", 17)
    world.scheduler.abort("nobody")
    world.drain()
    reasons = [world.answer("a", choice)[1] for choice in range(3)]
    assert reasons == [FinishReason.LENGTH, FinishReason.ABORT, FinishReason.LENGTH]


def test_an_abort_while_the_step_runs_drops_what_the_step_drew():
    world = World()
    world.submit("a", [0] * 3, max_tokens=9)
    world.step()
    events = world.step(between=lambda plan: world.scheduler.abort("a"))
    assert [(event.token_ids, event.finish_reason) for event in events] == [
        ((), FinishReason.ABORT)
    ]
    world.check_empty()


def test_an_id_used_again_while_the_step_runs_gets_nothing_of_the_old_one():
    world = World()
    world.submit("a", [0] * 3, max_tokens=9)
    world.step()

    def replace(plan):
        world.scheduler.abort("a")
        world.scheduler.add(world.requests["a"])

    world.step(between=replace)
    assert [sequence.num_computed for sequence in running(world.scheduler)] == []
    plan = world.scheduler.schedule()
    assert plan.released == ("a/0",)
    assert plan.started[0].token_ids == (0, 0, 0)


class Recording(ArrivalPolicy):
    """Remembers what it was told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def add(self, request):
        super().add(request)
        self.told.append(("add", request.sequence_id))

    def remove(self, sequence_id):
        super().remove(sequence_id)
        self.told.append(("remove", sequence_id))

    def on_scheduled(self, sequence_id, num_tokens):
        self.told.append((num_tokens, sequence_id))


def test_a_policy_hears_of_admission_of_tokens_and_of_the_end():
    policy = Recording()
    world = World(policy=policy, max_num_seqs=1)
    world.submit("a", [0] * 3, max_tokens=2)
    world.submit("b", [0] * 3, max_tokens=2)
    world.submit("held", [0], waits_for=frozenset({"grammar"}))
    world.step()
    world.step()
    for name in ("b", "held"):
        world.scheduler.abort(name)
    world.drain()
    assert policy.told == [
        ("add", "a/0"),
        ("add", "b/0"),
        ("remove", "a/0"),
        (3, "a/0"),
        (1, "a/0"),
        ("remove", "a/0"),
        ("remove", "b/0"),
    ]


# ---- failures


def test_a_step_that_failed_ends_its_rows_and_nobody_else():
    world = World(num_blocks=64, max_num_seqs=2, max_num_batched_tokens=64)
    for name in ("a", "b", "c"):
        world.submit(name, [0, 1, 2] * 3, max_tokens=5, tenant=name)
    events = world.step(fail=lambda plan: [row.sequence_id for row in plan.rows])
    assert [(event.request_id, event.error) for event in events] == [
        ("a", "step failed"),
        ("b", "step failed"),
    ]
    world.drain()
    assert world.answer("c") == world.truth("c")[:2]
    world.check_empty()


def test_a_row_that_failed_leaves_the_others_their_tokens():
    world = World(num_blocks=64, max_num_batched_tokens=64)
    for name in ("a", "b"):
        world.submit(name, [0, 1, 2] * 3, max_tokens=5, tenant=name)
    events = world.step(fail=lambda plan: ["a/0"])
    assert {event.request_id: event.finish_reason for event in events} == {
        "a": FinishReason.ERROR,
        "b": None,
    }
    world.drain()
    assert world.answer("b") == world.truth("b")[:2]


def test_nothing_a_failed_step_wrote_is_ever_read():
    world = World(num_blocks=64, max_num_batched_tokens=64)
    world.submit("a", [0, 1, 2] * 3, max_tokens=5)
    world.step(fail=lambda plan: ["a/0"])
    world.submit("b", [0, 1, 2] * 3, max_tokens=5)
    (event,) = world.step()  # the runner of World refuses to read a poisoned slot
    assert event.num_cached_tokens == 0


def test_a_failed_row_makes_its_whole_past_suspect():
    world = World(num_blocks=64, max_num_batched_tokens=64)
    world.submit("a", [0, 1, 2] * 3, max_tokens=5)
    world.step()
    world.step(fail=lambda plan: ["a/0"])
    world.submit("b", [0, 1, 2] * 3, max_tokens=5)
    (event,) = world.step()
    assert event.num_cached_tokens == 0


def test_a_result_that_lacks_rows_is_an_error_of_the_runner():
    world = World()
    for name in ("a", "b"):
        world.submit(name, [0], max_tokens=5)
    plan = world.scheduler.schedule()
    with pytest.raises(ValueError, match="shorter"):
        world.scheduler.commit(plan, StepResult(plan.step_id, (RowResult("a/0", (1,)),)))


# ---- rows under a grammar


def under_a_grammar(request_id, prompt):
    sampling = SamplingParams(max_tokens=4, structured=StructuredOutput.of_object())
    return Request(request_id, tuple(prompt), sampling, arrival_time_s=1.0)


def answer(plan, *drawn, complete=False):
    rows = [
        RowResult(row.sequence_id, tokens, complete=complete and bool(tokens))
        for row, tokens in zip(plan.rows, drawn, strict=True)
    ]
    return StepResult(plan.step_id, tuple(rows))


def test_a_row_that_drew_nothing_computes_its_last_token_again():
    world = World(max_num_batched_tokens=64)
    scheduler = world.scheduler
    scheduler.add(under_a_grammar("a", [0, 1, 2, 0, 1]))
    first = scheduler.schedule()
    assert scheduler.commit(first, answer(first, ())) == ()
    again = scheduler.schedule()
    (row,) = again.rows
    assert (list(row.token_ids), row.start, row.samples) == ([1], 4, True)
    (event,) = scheduler.commit(again, answer(again, (2,)))
    assert event.token_ids == (2,)
    (row,) = scheduler.schedule().rows
    assert (list(row.token_ids), row.start) == ([2], 5)


def test_it_is_not_planned_ahead_of_its_tokens_and_others_are():
    world = World(max_num_batched_tokens=64)
    scheduler = world.scheduler
    scheduler.add(under_a_grammar("a", [0, 1]))
    scheduler.add(Request("b", (1, 0), SamplingParams(max_tokens=9), arrival_time_s=1.0))
    first = scheduler.schedule()
    second = scheduler.schedule()
    assert [row.sequence_id for row in first.rows] == ["a/0", "b/0"]
    assert [row.sequence_id for row in second.rows] == ["b/0"]
    scheduler.commit(first, answer(first, (1,), (2,)))
    assert {row.sequence_id for row in scheduler.schedule().rows} == {"a/0", "b/0"}


def test_a_complete_text_stops_whatever_the_length_says():
    for max_drawn in ((2,), (2, 1, 0, 2)):
        world = World(max_num_batched_tokens=64)
        scheduler = world.scheduler
        scheduler.add(under_a_grammar("a", [0, 1]))
        plan = scheduler.schedule()
        (event,) = scheduler.commit(plan, answer(plan, max_drawn, complete=True))
        assert (event.finish_reason, event.stop_reason) == (FinishReason.STOP, None)
        assert event.token_ids == max_drawn


def test_a_request_that_cannot_run_ends_once_with_its_reason():
    world = World()
    scheduler = world.scheduler
    held = replace(under_a_grammar("a", [0, 1]), waits_for=frozenset({"grammar"}))
    scheduler.add(held)
    assert scheduler.schedule() is None
    scheduler.refuse("a", "no such grammar")
    scheduler.refuse("a", "again")
    (event,) = scheduler.take_events()
    assert (event.finish_reason, event.error) == (FinishReason.ERROR, "no such grammar")
    assert scheduler.num_waiting == 0
