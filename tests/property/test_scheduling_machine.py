"""Any interleaving of requests, drafts, aborts, failures and resets leaves the engine right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rtp_core.api import FinishReason, MediaSpan, Request, SamplingParams
from rtp_core.errors import RequestError
from rtp_core.kv.block_hash import BlockHasher
from rtp_core.scheduling.policies import ArrivalPolicy, PrefixPolicy, PriorityPolicy

sys.path.insert(0, str(Path(__file__).parents[1] / "scheduling"))
from paged_world import (
    VOCAB,
    OneBitHasher,
    OneByteHasher,
    Shape,
    World,
    partial,
    right,
    tree,
    wrong,
)

TOKENS = st.integers(0, VOCAB - 1)
PROMPTS = st.one_of(
    st.lists(TOKENS, min_size=1, max_size=24),
    st.builds(lambda token, count: [token] * count, TOKENS, st.integers(1, 24)),
)
OWNERS = (("", ""), ("a", ""), ("b", ""), ("a", "salt"))
TENANTS = st.sampled_from((OWNERS[0], *OWNERS))
DRAFTS = st.sampled_from([None, right, wrong, partial, tree])
POLICIES = (ArrivalPolicy, PriorityPolicy, PrefixPolicy)


@st.composite
def shapes(draw, hashers, depths):
    windows = draw(st.sampled_from([(None,), (None,), (None, 5), (6,), (9, None), (None, 1)]))
    max_num_seqs = draw(st.integers(1, 5))
    budget = draw(st.sampled_from([2, 5, 8, 40]))
    alignment = draw(st.sampled_from([1, 1, 2, 3, 8]))
    return Shape(
        num_blocks=draw(st.integers(4, 16)),
        window_blocks=draw(st.one_of(st.none(), st.integers(3, 8))),
        windows=windows,
        prefix_caching=draw(st.sampled_from([True, True, True, False])),
        watermark=draw(st.sampled_from([0.0, 0.1, 0.3])),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget,
        chunk_alignment=alignment if alignment <= budget - max_num_seqs else 1,
        max_model_len=draw(st.sampled_from([20, 40, 64])),
        hasher=draw(st.sampled_from(hashers)),
        eos=frozenset(draw(st.sets(TOKENS, max_size=1))),
        policy=draw(st.sampled_from(POLICIES))(),
        depth=draw(st.sampled_from(depths)),
    )


@st.composite
def samplings(draw):
    most = draw(st.one_of(st.none(), st.integers(0, 24)))
    return {
        "max_tokens": most,
        "n": draw(st.sampled_from([1, 1, 1, 2, 3])),
        "min_tokens": draw(st.integers(0, 3 if most is None else min(3, most))),
        "stop_token_ids": tuple(draw(st.sets(TOKENS, max_size=1))),
        "ignore_eos": draw(st.booleans()),
        "seed": draw(st.integers(0, 2)),
    }


@st.composite
def media(draw, length):
    """One span over part of the prompt, of one of two pictures."""
    if not draw(st.sampled_from([True, False, False, False])):
        return ()
    start = draw(st.integers(0, length - 1))
    size = draw(st.integers(1, length - start))
    return (MediaSpan(start, size, draw(st.sampled_from(["cat", "dog"])), "vision"),)


class Machine(RuleBasedStateMachine):
    """Rules are what clients and hardware may do at any time."""

    HASHERS = (BlockHasher,)
    DEPTHS = (1,)

    @initialize(data=st.data())
    def start(self, data):
        self.world = World(data.draw(shapes(self.HASHERS, self.DEPTHS)))
        self.count = 0
        self.waits = {}

    @rule(
        prompt=PROMPTS,
        sampling=samplings(),
        owner=TENANTS,
        priority=st.integers(-1, 1),
        waits=st.sampled_from([(), (), (), ("grammar",), ("grammar", "kv:1")]),
        data=st.data(),
    )
    def submit(self, prompt, sampling, owner, priority, waits, data):
        self._submit(prompt, sampling, owner, priority, waits, data)

    @precondition(lambda self: self.world.requests)
    @rule(sampling=samplings(), extra=st.lists(TOKENS, max_size=5), data=st.data())
    def continue_known_text(self, sampling, extra, data):
        """The same text again, or a conversation that goes on, often of the same owner."""
        request, text = self._known_text(data)
        owner = data.draw(st.one_of(st.just((request.tenant, request.cache_salt)), TENANTS))
        prompt = [*text[: data.draw(st.integers(1, len(text)))], *extra]
        self._submit(prompt, sampling, owner, data.draw(st.integers(-1, 1)), (), data)

    def _submit(self, prompt, sampling, owner, priority, waits, data):
        world, request_id = self.world, f"r{self.count}"
        self.count += 1
        fields = {
            "tenant": owner[0],
            "cache_salt": owner[1],
            "priority": priority,
            "media": data.draw(media(len(prompt))),
            "waits_for": frozenset(waits),
            **sampling,
        }
        total = len(prompt) + (1 if sampling["max_tokens"] is None else sampling["max_tokens"])
        if total > min(world.shape.max_model_len, world.cache.max_tokens):
            with pytest.raises(RequestError, match="tokens"):
                world.submit(request_id, prompt, **fields)
            world.forget(request_id)
            return
        world.submit(request_id, prompt, **fields)
        if waits:
            self.waits[request_id] = set(waits)

    @rule(steps=st.integers(1, 8), draft=DRAFTS)
    def step(self, steps, draft):
        for _ in range(steps):
            self.world.step(draft=draft)

    @rule(draft=DRAFTS, data=st.data())
    def failing_step(self, draft, data):
        def fail(plan):
            ids = [row.sequence_id for row in plan.rows]
            if data.draw(st.booleans(), label="whole step"):
                return ids
            return [data.draw(st.sampled_from(ids), label="row")]

        self.world.step(draft=draft, fail=fail)

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data())
    def abort(self, data):
        request_id, choice = self._any_request(data)
        self.world.scheduler.abort(request_id, choice)

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data(), failing=st.booleans())
    def abort_during_a_step(self, data, failing):
        request_id, choice = self._any_request(data)
        self.world.step(
            fail=(lambda plan: [row.sequence_id for row in plan.rows]) if failing else None,
            between=lambda plan: self.world.scheduler.abort(request_id, choice),
        )

    @precondition(lambda self: self.waits)
    @rule(data=st.data())
    def condition_met(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.waits)))
        condition = data.draw(st.sampled_from(sorted(self.waits[request_id])))
        self._meet(request_id, condition)

    @rule()
    def reset(self):
        in_use = self.world.cache.num_blocks_used
        assert self.world.cache.reset() == (in_use == 0)
        if not in_use:
            assert all(space.num_free == space.num_blocks for space in self.world.spaces)

    @rule(prompt=PROMPTS, owner=TENANTS, data=st.data())
    def probe(self, prompt, owner, data):
        spans = data.draw(media(len(prompt)))
        request = Request("probe", tuple(prompt), SamplingParams(), 0.0, 0, *owner, media=spans)
        self.world.check_match(request)

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data(), extra=TOKENS)
    def probe_known_text(self, data, extra):
        """Text that was generated, continued: the case in which the cache should shine."""
        request, text = self._known_text(data)
        for owner in {(request.tenant, request.cache_salt), *OWNERS}:
            self.world.check_match(
                Request("probe", (*text, extra), request.sampling, 0.0, 0, *owner)
            )

    @invariant()
    def bookkeeping(self):
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self):
        if not hasattr(self, "world"):
            return
        for request_id, conditions in list(self.waits.items()):
            for condition in sorted(conditions):
                self._meet(request_id, condition)
        world = self.world
        limit = sum(len(self.world.truth(*key)[0]) for key in world.outputs)
        prompts = sum(len(world.requests[key[0]].prompt_token_ids) for key in world.outputs)
        world.drain(most=50 + 10 * (limit + prompts))
        assert set(world.ended) == set(world.outputs)
        world.check_empty()

    def _known_text(self, data):
        request = self.world.requests[data.draw(st.sampled_from(sorted(self.world.requests)))]
        return request, (*request.prompt_token_ids, *self.world.outputs[request.request_id, 0])

    def _any_request(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.world.requests)))
        choices = range(self.world.requests[request_id].sampling.n)
        return request_id, data.draw(st.sampled_from([None, *choices]))

    def _meet(self, request_id, condition):
        if self.world.requests[request_id].sampling.max_tokens != 0:
            for key, tokens in self.world.outputs.items():
                if key[0] == request_id:
                    assert not tokens, "it ran before its condition was met"
                    assert self.world.ended.get(key) in (None, FinishReason.ABORT)
        self.world.scheduler.met(request_id, condition)
        self.waits[request_id].discard(condition)
        if not self.waits[request_id]:
            del self.waits[request_id]


class CollidingMachine(Machine):
    """The same with keys of one byte or bit: nothing may depend on keys being different."""

    HASHERS = (OneByteHasher, OneBitHasher)


class PipelinedMachine(Machine):
    """The same with each step planned while the one before it is in flight."""

    HASHERS = (BlockHasher, OneByteHasher)
    DEPTHS = (2,)


EVERYDAY = settings(max_examples=400, stateful_step_count=40, deadline=None)
LONG = settings(max_examples=2500, stateful_step_count=60, deadline=None, derandomize=False)
MACHINES = pytest.mark.parametrize("machine", [Machine, CollidingMachine, PipelinedMachine])


@MACHINES
def test_every_interleaving_keeps_answers_and_blocks_right(machine):
    run_state_machine_as_test(machine, settings=EVERYDAY)


@pytest.mark.long
@pytest.mark.timeout(3600)
@MACHINES
def test_many_interleavings_keep_answers_and_blocks_right(machine):
    run_state_machine_as_test(machine, settings=LONG)
