"""The order in which the engine launches steps, reads them and speaks of them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from rtp_core.api import (
    TO_BE_DRAWN,
    Draft,
    LoadStats,
    RowResult,
    SpeculatorNeeds,
    StepResult,
)
from rtp_core.engine.contract import ModelInfo
from rtp_core.engine.core import EngineCore, EngineParts
from rtp_core.speculation.controller import SpeculationController
from rtp_core.testing.fakes import FlatCosts, PlaneMemory

sys.path.insert(0, str(Path(__file__).parents[1] / "scheduling"))
from paged_world import World


class LateRunner:
    """Draws 1, 2, 3, … for every sequence and keeps a diary."""

    def __init__(self, most_in_flight):
        self.most_in_flight = most_in_flight
        self.diary = []
        self.plans = {}
        self.breaks_launching = set()
        self.breaks_running = set()

    def launch(self, plan):
        self.diary.append(("launch", plan.step_id))
        self.plans[plan.step_id] = plan
        if plan.step_id in self.breaks_launching:
            raise RuntimeError("no launch")
        return lambda: self._finish(plan)

    def _finish(self, plan):
        self.diary.append(("read", plan.step_id))
        if plan.step_id in self.breaks_running:
            raise RuntimeError("broke")
        rows = tuple(
            RowResult(row.sequence_id, (1,) * (row.samples + row.num_drafts), row.num_drafts)
            for row in plan.rows
        )
        return StepResult(plan.step_id, rows)


@pytest.fixture
def world():
    return World(num_blocks=64, max_num_batched_tokens=16)


class Drafter:
    """Drafts 1, 1 where a function says so, with the length of the text known."""

    needs = SpeculatorNeeds(2)

    def __init__(self, drafts_at):
        self._drafts_at = drafts_at

    def propose(self, rows):
        return [Draft((1, 1) if self._drafts_at(len(row.token_ids)) else ()) for row in rows]

    def observe(self, commits):
        """Nothing is learnt."""

    def release(self, sequence_id):
        """Nothing is kept."""


def engine_of(world, runner, *drafters):
    info = ModelInfo("model", "Fake", 64, 8, frozenset(), "", "float32", {})
    return EngineCore(
        EngineParts(
            info=info,
            scheduler=world.scheduler,
            runner=runner,
            speculation=SpeculationController(
                [("d", one) for one in drafters], 2, 8, lambda *_: None
            ),
            memory=PlaneMemory([], [], 4, "cpu"),
            costs=FlatCosts(),
            load=LoadStats("none", 0, 0.0),
            explain=dict,
            plugin_errors=Counter(),
        )
    )


def run_out(engine):
    events = []
    for _ in range(100):
        if not engine.has_work:
            return events
        events.extend(engine.step())
    raise AssertionError("still busy")


def test_one_step_at_a_time(world):
    runner = LateRunner(1)
    engine = engine_of(world, runner)
    world.submit("a", [0, 1], max_tokens=2)
    run_out(engine)
    assert runner.diary == [("launch", 1), ("read", 1), ("launch", 2), ("read", 2)]


def test_a_step_is_launched_before_the_one_before_it_is_read(world):
    runner = LateRunner(2)
    engine = engine_of(world, runner)
    world.submit("a", [0, 1], max_tokens=3)
    events = run_out(engine)
    assert runner.diary == [
        ("launch", 1),
        ("launch", 2),
        ("read", 1),
        ("launch", 3),
        ("read", 2),
        ("read", 3),
    ]
    assert list(runner.plans[2].rows[0].token_ids) == [TO_BE_DRAWN]
    assert [event.token_ids for event in events] == [(1,), (1,), (1,)]
    assert events[-1].finish_reason == "length"


def test_a_row_launched_for_a_sequence_that_ended_meanwhile_is_dropped(world):
    runner = LateRunner(2)
    engine = engine_of(world, runner)
    world.submit("a", [0, 1], max_tokens=9, stop_token_ids=(1,))
    events = run_out(engine)
    assert [event.token_ids for event in events] == [(1,)]
    assert runner.diary[-1] == ("read", 2)
    assert world.cache.num_blocks_used == 0


def test_a_drafter_without_ideas_leaves_steps_ahead(world):
    with_drafter, without = LateRunner(2), LateRunner(2)
    for runner, drafters in ((with_drafter, [Drafter(lambda length: False)]), (without, [])):
        engine = engine_of(world, runner, *drafters)
        world.submit("a", [0, 1], max_tokens=5)
        run_out(engine)
    steps = [(what, step - 5 * (step > 5)) for what, step in without.diary]
    assert with_drafter.diary == steps


def test_a_step_is_read_before_the_next_is_drafted_for_and_told_after_it_is_launched():
    world = World(num_blocks=64, max_num_batched_tokens=16, max_draft_tokens=2)
    runner = LateRunner(2)
    engine = engine_of(world, runner, Drafter(lambda length: length >= 3))
    world.submit("a", [0, 1], max_tokens=9)
    told = []
    while engine.has_work:
        told.extend(len(event.token_ids) for event in engine.step())
        if told:
            runner.diary.append(("told", sum(told)))
    # The first token is drawn ahead of; then each step waits for the tokens it drafts from.
    assert runner.diary == [
        ("launch", 1), ("launch", 2), ("read", 1), ("told", 1),
        ("read", 2), ("launch", 3), ("told", 2),
        ("read", 3), ("launch", 4), ("told", 5),
        ("read", 4), ("launch", 5), ("told", 8),
        ("read", 5), ("told", 9),
    ]  # fmt: skip
    assert [plan.rows[0].num_drafts for plan in runner.plans.values()] == [0, 0, 2, 2, 0]


def test_where_steps_run_in_launching_nothing_is_launched_before_events_are_told():
    world = World(num_blocks=64, max_num_batched_tokens=16, max_draft_tokens=2)
    runner = LateRunner(1)
    engine = engine_of(world, runner, Drafter(lambda length: True))
    world.submit("a", [0, 1], max_tokens=7)
    while engine.has_work:
        if engine.step():
            runner.diary.append("told")
    assert runner.diary[:6] == [
        ("launch", 1), ("read", 1), "told", ("launch", 2), ("read", 2), "told",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["breaks_launching", "breaks_running"])
def test_a_broken_step_ends_its_rows_and_the_engine_goes_on(world, kind):
    runner = LateRunner(2)
    getattr(runner, kind).add(2)
    engine = engine_of(world, runner)
    world.submit("a", [0, 1], max_tokens=5)
    events = run_out(engine)
    assert [event.finish_reason for event in events] == [None, "error"]
    assert events[0].token_ids == (1,)
    world.submit("b", [0, 1], max_tokens=1)
    (event,) = run_out(engine)
    assert event.finish_reason == "length"


def test_an_abort_while_steps_are_in_flight_frees_everything(world):
    runner = LateRunner(2)
    engine = engine_of(world, runner)
    world.submit("a", [0, 1], max_tokens=9)
    engine.step()
    engine.abort("a")
    (event,) = run_out(engine)
    assert event.finish_reason == "abort"
    assert world.cache.num_blocks_used == 0
