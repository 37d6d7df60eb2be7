"""Fakes are parts: a scheduler and a runner work with nothing else."""

from __future__ import annotations

import pytest

from rtp_core.api import Draft, EngineLimits, Request, SamplingParams
from rtp_core.execution.model_runner import ModelRunner
from rtp_core.kv.block_hash import BlockHasher
from rtp_core.kv.cache import CacheSettings, KVCache
from rtp_core.sampling.sampler import Sampler
from rtp_core.scheduling.scheduler import Scheduler
from rtp_core.testing.checkpoints import LLAMA_CONFIG
from rtp_core.testing.fakes import (
    FlatCosts,
    ManualClock,
    PassThroughBackend,
    PlaneStore,
    QueuePolicy,
    ScriptedSpeculator,
    SuccessorFamily,
)

BLOCK = 16
LIMITS = EngineLimits(64, 4, 32, BLOCK, 4)


def count_on(prompts, speculator=None):
    """Every answer the counting model gives, with the real scheduler, runner and sampler."""
    family = SuccessorFamily()
    spec = family.spec(LLAMA_CONFIG, "float32", "fake")
    memory = PlaneStore().open(spec.kv_groups, (16,), BLOCK, "cpu")
    cache = KVCache(
        spec.kv_groups, [memory.space(0)], BlockHasher(b"1" * 32, BLOCK), CacheSettings(BLOCK)
    )
    scheduler = Scheduler(QueuePolicy(), cache, LIMITS, ManualClock(), frozenset())
    attention = PassThroughBackend().bind(spec, memory, BLOCK)
    model = family.build(spec, {}, None, None)
    runner = ModelRunner(model, attention, memory, Sampler(spec.vocab_size, frozenset()), "cpu")
    sampling = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
    for number, prompt in enumerate(prompts):
        scheduler.add(Request(str(number), tuple(prompt), sampling))
    answers, steps = {}, 0
    while scheduler.has_work:
        if speculator is not None:
            rows = scheduler.draft_rows()
            for row, draft in zip(rows, speculator.propose(rows), strict=True):
                scheduler.set_draft(row.sequence_id, draft)
        plan = scheduler.schedule()
        for event in scheduler.commit(plan, runner.run(plan)):
            answers.setdefault(event.request_id, []).extend(event.token_ids)
        steps += 1
    return answers, steps


PROMPTS = ([3, 4, 5], [40], [60, 61, 62, 63])
EXPECTED = {
    "0": [6, 7, 8, 9, 10, 11],
    "1": [41, 42, 43, 44, 45, 46],
    "2": [0, 1, 2, 3, 4, 5],
}


def test_the_counting_model_counts():
    answers, steps = count_on(PROMPTS)
    assert answers == EXPECTED
    assert steps == 6


@pytest.mark.parametrize(("offset", "fewer"), [(1, True), (2, False)])
def test_scripted_drafts_save_steps_only_when_right(offset, fewer):
    def answer(row):
        last = row.token_ids[-1]
        return Draft(tuple((last + offset + n) % 64 for n in range(row.max_tokens)))

    answers, steps = count_on(PROMPTS, ScriptedSpeculator(answer=answer))
    assert answers == EXPECTED
    assert (steps < 6) is fewer


def test_time_stands_still_until_it_is_moved_and_never_goes_back():
    clock = ManualClock(5.0)
    assert clock.now_s() == 5.0
    clock.advance(2.5)
    clock.advance(-1.0)
    assert clock.now_s() == 7.5


def test_costs_keep_what_was_measured():
    costs = FlatCosts(0.5)
    costs.record(3, 100, 1, 9.0)
    assert costs.seconds(4, 1000, 7) == 2.0
    assert costs.recorded == [(3, 100, 1, 9.0)]
