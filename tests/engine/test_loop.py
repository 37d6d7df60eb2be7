"""The loop alone, driven by a list of orders, with a clock of ours."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import scripted_engine as script
from scripted_engine import ScriptedEngine

from rtp_core.api import Request, SamplingParams
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.loop import FAILED, EngineLoop
from rtp_core.engine.wire import (
    Abort,
    AskExplain,
    AskReport,
    AskStats,
    Configure,
    Done,
    Events,
    Explained,
    Failed,
    Refused,
    ResetCache,
    Shutdown,
    Stats,
    Submit,
    Unanswered,
)


def submit(name, *prompt, **sampling):
    sampling.setdefault("max_tokens", 3)
    return Submit(Request(name, prompt or (1,), SamplingParams(**sampling)))


class Orders:
    """An inbox that hands out one batch a call, notes how long the loop would sleep, ends."""

    def __init__(self, *batches, step_s=0.0):
        self.batches = deque(batches)
        self.patience = []
        self.now_s = 100.0
        self.step_s = step_s

    def take(self, timeout_s):
        self.patience.append(timeout_s)
        self.now_s += self.step_s
        if self.batches:
            return self.batches.popleft()
        if timeout_s == 0.0:
            return []
        if timeout_s is not None:
            self.now_s += timeout_s
            return []
        return [Shutdown()]

    def clock(self):
        return self.now_s


def run(engine, *batches, step_s=0.0):
    orders, published = Orders(*batches, step_s=step_s), []
    ok = EngineLoop(engine, orders, published.append, orders.clock).run()
    return ok, published, orders


def tokens(published, name):
    events = [e for m in published if isinstance(m, Events) for e in m.events]
    return [t for e in events if e.request_id == name for t in e.token_ids]


def test_the_events_of_a_step_are_one_message():
    ok, published, _ = run(ScriptedEngine(), [submit("a"), submit("b", n=2)])
    steps = [m for m in published if isinstance(m, Events)]
    assert ok
    assert [len(step.events) for step in steps] == [3, 3, 3]
    assert tokens(published, "a") == [0, 1, 2]


def test_it_sleeps_without_limit_when_there_is_nothing_to_do():
    _, _, orders = run(ScriptedEngine(), [submit("a")])
    assert orders.patience[0] is None
    assert orders.patience[1:3] == [0.0, 0.0]
    assert orders.patience[-1] is None


def test_a_step_without_events_sends_no_message():
    engine = ScriptedEngine(prefill=True)
    _, published, _ = run(engine, [submit("a", 1, 2, 3, 4)])
    assert engine.num_steps == 6
    assert sum(isinstance(m, Events) for m in published) == 3


def test_a_refusal_answers_that_request_only():
    _, published, _ = run(ScriptedEngine(), [submit("bad", script.REFUSE), submit("good")])
    (refused,) = [m for m in published if isinstance(m, Refused)]
    assert refused.request_id == "bad"
    assert refused.error.details == {
        "param": "messages",
        "status": 413,
        "code": "context_length_exceeded",
        "retry_after_s": None,
    }
    assert tokens(published, "good") == [0, 1, 2]


def test_a_bug_while_queueing_refuses_that_request_and_leaves_nothing_behind():
    engine = ScriptedEngine()
    ok, published, _ = run(engine, [submit("bad", script.RAISE_IN_SUBMIT), submit("good")])
    assert ok
    (refused,) = [m for m in published if isinstance(m, Refused)]
    assert refused.error.details["status"] == 500
    assert "secret" not in refused.error.message
    assert tokens(published, "bad") == []
    assert tokens(published, "good") == [0, 1, 2]


def test_an_exception_in_a_step_ends_the_loop_and_frees_the_engine():
    engine = ScriptedEngine()
    ok, published, _ = run(engine, [submit("a", script.RAISE_IN_STEP)])
    assert not ok
    assert published[-1] == Failed(FAILED)
    assert engine.closed == 1


def test_a_lost_device_ends_the_loop_with_the_reason():
    engine = ScriptedEngine()
    ok, published, _ = run(engine, [submit("a", script.LOSE_DEVICE)])
    assert not ok
    (reason,) = (one.reason for one in published if isinstance(one, Failed))
    assert reason.startswith("the engine ends itself: the GPU cannot be used")
    assert reason.endswith("Xid 31")
    assert engine.closed == 1


def test_orders_are_obeyed_in_sequence():
    engine = ScriptedEngine()
    _, published, _ = run(engine, [submit("a"), Abort("a"), submit("b", n=2), Abort("b", 1)])
    assert engine.aborted == [("a", None), ("b", 1)]
    assert tokens(published, "a") == []
    assert tokens(published, "b") == [0, 1, 2]


def test_shutdown_stops_before_the_next_step():
    engine = ScriptedEngine()
    ok, _, _ = run(engine, [submit("a")], [Shutdown()])
    assert ok
    assert engine.num_steps == 1
    assert engine.closed == 1


def test_a_second_configuration_is_fatal():
    ok, _, _ = run(ScriptedEngine(), [Configure(EngineConfig())])
    assert not ok


class Mute(ScriptedEngine):
    """Answers no question."""

    def explain(self):
        raise ZeroDivisionError("secret")

    def reset_prefix_cache(self):
        from rtp_core.errors import CapacityError

        raise CapacityError("blocks are in use", remedy="wait")


def test_questions_are_answered_by_number():
    _, published, _ = run(ScriptedEngine(), [AskStats(5), AskExplain(6), ResetCache(7)])
    stats, explained, done = published
    assert isinstance(stats, Stats)
    assert stats.question == 5
    assert isinstance(explained, Explained)
    assert (explained.question, explained.features["loader"]) == (6, {"offer": "scripted"})
    assert done == Done(7, done=True)


def test_reports_are_answered_by_topic():
    _, published, _ = run(ScriptedEngine(), [AskReport(5, "cost"), AskReport(6, "blocks")])
    assert published == [Explained(5, {"topic": "cost"}), Explained(6, {"topic": "blocks"})]


def test_a_question_that_raises_is_answered_and_harms_nobody():
    ok, published, _ = run(Mute(), [submit("a"), AskExplain(6), ResetCache(7)])
    assert ok
    bug, error = (m for m in published if isinstance(m, Unanswered))
    assert (bug.question, "secret" in bug.error.message) == (6, False)
    assert (error.question, error.error.kind, error.error.remedy) == (7, "CapacityError", "wait")
    assert tokens(published, "a") == [0, 1, 2]


@pytest.mark.parametrize("step_s", [0.001, 0.05, 1.0])
def test_snapshots_come_at_most_five_times_a_second(step_s):
    _, published, orders = run(ScriptedEngine(), [submit("a", max_tokens=100)], step_s=step_s)
    snapshots = [m for m in published if isinstance(m, Stats)]
    seconds = orders.now_s - 100.0
    assert seconds / (step_s + 0.2) - 2 <= len(snapshots) <= seconds / 0.2 + 2


def test_the_last_snapshot_before_sleeping_tells_the_truth():
    _, published, _ = run(ScriptedEngine(), [submit("a")], step_s=0.001)
    assert published[-1].stats.generation_tokens == 3
    assert published[-1].stats.num_running == 0
