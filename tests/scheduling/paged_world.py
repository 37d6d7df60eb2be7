"""A whole engine without a model: real Scheduler and KVCache, a runner that checks everything.

The runner's next token is a fixed function of the tokens before it, so the plain answer of
every request is known. Its memory holds, in every slot, a tag: the whole prefix (tenant and
media included) that was computed into it. A row may only read slots that hold the tags of its
own prefix, and only write blocks that nobody else can see.

A world of depth 2 plans each step while the one before it is in flight: memory is written in
the order of the plans, as on a device, and the scheduler hears of a step one step later.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from dataclasses import dataclass, field, replace

from rtp_core.api import (
    TO_BE_DRAWN,
    Draft,
    EngineLimits,
    FinishReason,
    KVGroup,
    KVPlane,
    Request,
    RowResult,
    SamplingParams,
    StepResult,
)
from rtp_core.kv.block_hash import BlockHasher
from rtp_core.kv.block_space import BlockSpace
from rtp_core.kv.cache import CacheSettings, KVCache
from rtp_core.scheduling.policies import ArrivalPolicy
from rtp_core.scheduling.scheduler import Scheduler

BLOCK = 4
VOCAB = 3
PLANE = KVPlane(1, 1, "float32")
POISON = "poison"


def running(scheduler):
    return list(scheduler._batch)


def is_free(space, block):
    return space.is_free(block)


def claims(scheduler):
    return scheduler._batch._pending


class ManualClock:
    def __init__(self):
        self.time_s = 1.0

    def now_s(self):
        return self.time_s


class OneByteHasher(BlockHasher):
    """Keys that collide now and then."""

    def __init__(self, secret, block_size):
        super().__init__(secret, block_size, digest_bytes=1)


class OneBitHasher(BlockHasher):
    """Keys that collide all the time, roots included."""

    def root(self, tenant, cache_salt, fingerprint):
        return bytes((super().root(tenant, cache_salt, fingerprint)[0] & 1,))

    def key(self, parent, token_ids, media=""):
        return bytes((super().key(parent, token_ids, media)[0] & 1,))


@dataclass
class Shape:
    """Everything that is fixed when an engine starts."""

    num_blocks: int = 16
    window_blocks: int | None = None
    windows: tuple = (None,)
    prefix_caching: bool = True
    watermark: float = 0.0
    max_num_seqs: int = 4
    max_num_batched_tokens: int = 8
    max_model_len: int = 64
    max_draft_tokens: int = 4
    hasher: type = BlockHasher
    block_size: int = BLOCK
    eos: frozenset = frozenset()
    policy: object = field(default_factory=ArrivalPolicy)
    depth: int = 1
    chunk_alignment: int = 1

    @property
    def num_window_blocks(self):
        return self.window_blocks or self.num_blocks


def next_token(tokens, seed, choice):
    """The model: any fixed function of the prefix will do."""
    return zlib.crc32(bytes(tokens) + bytes((seed % 251, choice))) % VOCAB


def plain_answer(request, choice, limit, eos=frozenset()):
    """(tokens, finish reason, stop id) of plain decoding, one token at a time."""
    sampling = request.sampling
    stops = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else eos)
    tokens = list(request.prompt_token_ids)
    answer = []
    if sampling.max_tokens == 0:
        return answer, FinishReason.LENGTH, None
    while True:
        answer.append(next_token(tokens, sampling.seed, choice))
        tokens.append(answer[-1])
        if answer[-1] in stops and len(answer) > sampling.min_tokens:
            return answer, FinishReason.STOP, answer[-1]
        if len(tokens) >= limit:
            return answer, FinishReason.LENGTH, None


def tag(request, tokens, position):
    """What the slot of `position` holds: the prefix up to it, whose it is, and its media."""
    media = tuple(
        (at, span.digest, at - span.start)
        for span in request.media
        for at in range(span.start, min(span.start + span.length, position + 1))
    )
    return request.tenant, request.cache_salt, tuple(tokens[: position + 1]), media


class CheckingRunner:
    """Executes plans on tagged memory and asserts that each could have been right."""

    def __init__(self, world):
        self.world = world
        self.memory = {}
        self.states = {}
        self.lost = set()
        self.forwards = 0
        self.computed = Counter()

    def run(self, plan, before, failing=frozenset()):
        """`before`: published entries a group ahead of scheduling. `failing` rows go wrong."""
        self.forwards += 1
        for sequence_id in plan.released:
            self.states.pop(sequence_id, None)
            self.lost.discard(sequence_id)
        for start in plan.started:
            request = self.world.requests[start.sequence_id.rpartition("/")[0]]
            known = [
                *request.prompt_token_ids,
                *self.world.outputs[request.request_id, start.choice],
            ]
            assert list(start.token_ids) == known
            assert start.num_prompt_tokens == len(request.prompt_token_ids)
            self.states[start.sequence_id] = (request, start.choice, list(start.token_ids))
        plan = replace(plan, rows=tuple(map(self._filled, plan.rows)))
        failing |= self.lost & {row.sequence_id for row in plan.rows}
        for row in plan.rows:
            if row.sequence_id not in self.lost:
                self._check_reads(row)
        self.lost |= failing
        written = set()
        for row in plan.rows:
            self._write(row, before, written, poison=row.sequence_id in failing)
        if failing and all(row.sequence_id in failing for row in plan.rows):
            errors = {row.sequence_id: "step failed" for row in plan.rows}
            return StepResult(plan.step_id, (), errors=errors)
        rows = tuple(self._draw(row, row.sequence_id in failing) for row in plan.rows)
        errors = {row.sequence_id: "row failed" for row in plan.rows if row.sequence_id in failing}
        return StepResult(plan.step_id, rows, errors=errors)

    def _filled(self, row):
        """The row with the token that the step before it drew."""
        if TO_BE_DRAWN not in row.token_ids:
            return row
        assert self.world.shape.depth > 1
        assert list(row.token_ids) == [TO_BE_DRAWN]
        _, _, tokens = self.states[row.sequence_id]
        token = 0 if row.sequence_id in self.lost else tokens[row.start]
        return row._replace(token_ids=[token])

    def _slot(self, table, position):
        size = self.world.shape.block_size
        return table[position // size] * size + position % size

    def _check_reads(self, row):
        request, _, tokens = self.states[row.sequence_id]
        known = len(row.token_ids) - row.num_drafts
        assert known >= 1
        assert list(row.token_ids[:known]) == tokens[row.start : row.start + known]
        assert row.samples == (row.start + known == len(tokens))
        assert row.samples or not row.num_drafts
        end = row.start + len(row.token_ids)
        for group, (table, window) in enumerate(
            zip(row.block_tables, self.world.shape.windows, strict=True)
        ):
            assert len(table) * self.world.shape.block_size >= end
            first = 0 if window is None else max(0, row.start - window + 1)
            for position in range(first, row.start):
                found = self.memory.get((group, self._slot(table, position)))
                assert found == tag(request, tokens, position), (row.sequence_id, position)
            held = self.world.cache.pools[group]
            assert all(held.references(block) for block in table), "a table names a free block"

    def _write(self, row, before, written, *, poison):
        request, _, tokens = self.states[row.sequence_id]
        path = [*tokens[: row.start], *row.token_ids]
        size = self.world.shape.block_size
        self.computed[row.sequence_id] += len(row.token_ids) - row.num_drafts
        for group, table in enumerate(row.block_tables):
            pool = self.world.cache.pools[group]
            for position in range(row.start, len(path)):
                block = table[position // size]
                slot = self._slot(table, position)
                assert pool.references(block) == 1, "a shared block is written"
                entry = before[group].get(block)
                assert entry is None or pool._published.get(block) is not entry, "immutable"
                assert (group, slot) not in written
                written.add((group, slot))
                self.memory[group, slot] = POISON if poison else tag(request, path, position)

    def _draw(self, row, failed):
        if failed or not row.samples:
            return RowResult(row.sequence_id, ())
        request, choice, tokens = self.states[row.sequence_id]
        drafts = list(row.token_ids[len(row.token_ids) - row.num_drafts :])
        drawn = []
        while True:
            token = next_token(tokens, request.sampling.seed, choice)
            tokens.append(token)
            drawn.append(token)
            if len(drawn) > len(drafts) or drafts[len(drawn) - 1] != token:
                return RowResult(row.sequence_id, tuple(drawn), len(drawn) - 1)


class World:
    """Drives the parts as the engine does, and keeps account of every answer."""

    def __init__(self, shape=None, **changes):
        self.shape = shape or Shape(**changes)
        shape = self.shape
        self.clock = ManualClock()
        self.kv_events = []
        groups = [
            KVGroup(f"group{number}", (number,), (PLANE, PLANE), window)
            for number, window in enumerate(shape.windows)
        ]
        self.spaces = [
            BlockSpace(shape.num_blocks if window is None else shape.num_window_blocks)
            for window in shape.windows
        ]
        self.cache = KVCache(
            groups,
            self.spaces,
            shape.hasher(b"k" * 32, shape.block_size),
            CacheSettings(
                shape.block_size,
                "model",
                shape.prefix_caching,
                shape.watermark,
                shape.max_num_batched_tokens,
            ),
            self.kv_events.append,
        )
        self.limits = EngineLimits(
            shape.max_model_len,
            shape.max_num_seqs,
            shape.max_num_batched_tokens,
            shape.block_size,
            shape.max_draft_tokens,
            shape.chunk_alignment,
        )
        self.scheduler = Scheduler(shape.policy, self.cache, self.limits, self.clock, shape.eos)
        self.runner = CheckingRunner(self)
        self.requests = {}
        self.outputs = {}
        self.ended = {}
        self.plans = []
        self.in_flight = deque()

    # ---- what a client does

    def submit(self, request_id, prompt, max_tokens=8, **fields):
        """Queue a request; sampling fields and request fields may be mixed in `fields`."""
        self.clock.time_s += 0.001
        sampling_fields = {
            name: fields.pop(name)
            for name in ("n", "stop_token_ids", "min_tokens", "ignore_eos", "seed")
            if name in fields
        }
        sampling_fields.setdefault("seed", 0)
        request = Request(
            request_id,
            tuple(prompt),
            SamplingParams(temperature=0.0, max_tokens=max_tokens, **sampling_fields),
            fields.pop("arrival_time_s", self.clock.time_s),
            **fields,
        )
        self.requests[request_id] = request
        for choice in range(request.sampling.n):
            self.outputs[request_id, choice] = []
        self.scheduler.add(request)
        return request

    def forget(self, request_id):
        """The request was refused: no answer is expected."""
        for choice in range(self.requests.pop(request_id).sampling.n):
            del self.outputs[request_id, choice]

    def step(self, *, draft=None, fail=None, between=None):
        """One engine step. `draft(row, truth)` -> Draft; `fail(plan)` -> ids that go wrong."""
        self.clock.time_s += 0.25
        for row in self.scheduler.draft_rows() if draft and self.shape.depth == 1 else ():
            assert 0 < row.max_tokens <= self.limits.max_draft_tokens
            made = draft(row, self._continuation(row))
            if made.token_ids:
                self.scheduler.set_draft(row.sequence_id, made)
        before = [dict(pool._published) for pool in self.cache.pools]
        plan = self.scheduler.schedule()
        if plan is not None:
            self._check_plan(plan)
            result = self.runner.run(plan, before, frozenset(fail(plan)) if fail else frozenset())
            self.in_flight.append((plan, result))
            self.plans.append(plan)
        if between and plan is not None:
            between(plan)
        if self.in_flight and (plan is None or len(self.in_flight) >= self.shape.depth):
            events = self.scheduler.commit(*self.in_flight.popleft())
        else:
            events = self.scheduler.take_events()
        self._account(events)
        return events

    def drain(self, most=2000, **how):
        """Step until nothing is left; a livelock fails."""
        for _ in range(most):
            if not self.scheduler.has_work:
                return
            self.step(**how)
        raise AssertionError(f"still busy after {most} steps")

    def answer(self, request_id, choice=0):
        """(tokens, reason) delivered."""
        return self.outputs[request_id, choice], self.ended.get((request_id, choice))

    def truth(self, request_id, choice=0):
        """(tokens, reason, stop id) of plain decoding."""
        request = self.requests[request_id]
        wanted = request.sampling.max_tokens
        room = min(self.shape.max_model_len, self.cache.max_tokens)
        limit = room if wanted is None else len(request.prompt_token_ids) + wanted
        return plain_answer(request, choice, limit, self.shape.eos)

    # ---- what must always hold

    def check(self):
        """Invariants between steps."""
        for group, (pool, space) in enumerate(zip(self.cache.pools, self.spaces, strict=True)):
            occurrences = Counter()
            for sequence in running(self.scheduler):
                table = sequence.blocks.tables[group]
                dropped = sequence.blocks.num_dropped[group]
                occurrences.update(table[dropped:])
                assert set(table[:dropped]) <= set(table[dropped:])
            assert occurrences == Counter(pool._refs)
            used, idle = set(pool._refs), set(pool._idle)
            free = {block for block in range(space.num_blocks) if is_free(space, block)}
            assert used | idle | free == set(range(space.num_blocks))
            assert len(used) + len(idle) + len(free) == space.num_blocks
            assert idle <= set(pool._published) <= used | idle
            assert pool.num_available == len(idle) + len(free)

    def check_match(self, request):
        """The cache finds exactly the longest prefix that memory holds published for it."""
        tokens = list(request.prompt_token_ids)
        blocks = self.cache.open(
            request.tenant, request.cache_salt, request.kv_quality, request.media
        )
        match = self.cache.lookup(blocks, tokens)
        assert match.num_blocks * self.shape.block_size <= len(tokens) - 1
        assert match.num_blocks == self._longest(request, tokens)
        size = self.shape.block_size
        for group, found in enumerate(match.blocks):
            for number, block in enumerate(found):
                if block is not None:
                    for at in range(number * size, (number + 1) * size):
                        slot = block * size + at % size
                        assert self.runner.memory[group, slot] == tag(request, tokens, at)

    def check_empty(self):
        """Nothing runs: nothing is held, and a reset frees every block."""
        assert not running(self.scheduler)
        assert self.cache.reset()
        for pool, space in zip(self.cache.pools, self.spaces, strict=True):
            assert space.num_free == space.num_blocks == pool.num_available
            assert len(pool.index) == 0
            assert not pool.index._children
        assert len(claims(self.scheduler)) == 0

    def _longest(self, request, tokens):
        size = self.shape.block_size
        if not self.shape.prefix_caching:
            return 0
        held = [
            {self.runner.memory.get((group, block * size + size - 1)) for block in pool._published}
            for group, pool in enumerate(self.cache.pools)
        ]

        def visible(length):
            for tags, window in zip(held, self.shape.windows, strict=True):
                first = 0 if window is None else max(0, length * size - window + 1) // size
                first = min(first, max(0, length - 1))  # a table is never empty
                for number in range(first, length):
                    if tag(request, tokens, (number + 1) * size - 1) not in tags:
                        return False
            return True

        most = (len(tokens) - 1) // size
        return next(length for length in range(most, -1, -1) if visible(length))

    def _check_plan(self, plan):
        assert 0 < plan.num_tokens <= self.limits.max_num_batched_tokens
        ids = [row.sequence_id for row in plan.rows]
        assert len(ids) == len(set(ids)) <= self.limits.max_num_seqs
        assert len(running(self.scheduler)) <= self.limits.max_num_seqs

    def _account(self, events):
        keys = [(event.request_id, event.choice) for event in events]
        assert len(keys) == len(set(keys)), "one event a step and choice"
        for key, event in zip(keys, events, strict=True):
            assert key not in self.ended, "nothing comes after the end"
            self.outputs[key].extend(event.token_ids)
            tokens, reason, stop = self.truth(*key)
            assert self.outputs[key] == tokens[: len(self.outputs[key])]
            if event.finish_reason is None:
                assert event.token_ids
                continue
            self.ended[key] = event.finish_reason
            if event.finish_reason in (FinishReason.STOP, FinishReason.LENGTH):
                assert (self.outputs[key], event.finish_reason) == (tokens, reason)
                assert event.stop_reason == stop
            assert (event.error is not None) == (event.finish_reason is FinishReason.ERROR)

    def _continuation(self, row):
        request_id, _, choice = row.sequence_id.rpartition("/")
        request = self.requests[request_id]
        tokens = list(row.token_ids)
        for _ in range(row.max_tokens):
            tokens.append(next_token(tokens, request.sampling.seed, int(choice)))
        return tokens[len(row.token_ids) :]


def right(row, truth):
    return Draft(tuple(truth))


def wrong(row, truth):
    return Draft(tuple((token + 1) % VOCAB for token in truth))


def partial(row, truth):
    return Draft((*truth[:1], *((token + 1) % VOCAB for token in truth[1:])))


def tree(row, truth):
    """The first branch is right for one token; a second branch hangs beside it."""
    nodes = [(truth[0], -1), ((truth[0] + 1) % VOCAB, -1)]
    if len(truth) > 2:
        nodes.append((truth[1], 0))
    nodes = nodes[: row.max_tokens]
    return Draft(tuple(token for token, _ in nodes), tuple(parent for _, parent in nodes))
