"""The real scheduler over the real cache; only the model is left out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from rtp_core.api import (
    EngineLimits,
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
from rtp_core.scheduling.scheduler import Scheduler
from rtp_core.testing.fakes import ManualClock

BLOCK = 16
STEP_S = 0.01


@dataclass
class Outcome:
    """Tokens computed by tenant, and the steps each request waited."""

    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    waits: dict[str, int] = field(default_factory=dict)
    preemptions: int = 0


class Simulation:
    def __init__(self, policy, num_blocks=400, max_num_seqs=8, max_tokens=256):
        plane = KVPlane(1, 8, "float32")
        self.clock = ManualClock()
        self.outcome = Outcome()
        cache = KVCache(
            [KVGroup("main", (0,), (plane, plane))],
            [BlockSpace(num_blocks)],
            BlockHasher(b"0" * 32, BLOCK),
            CacheSettings(BLOCK),
        )
        limits = EngineLimits(2048, max_num_seqs, max_tokens, BLOCK, 0)
        self.scheduler = Scheduler(policy, cache, limits, self.clock, frozenset())
        self._arrival: dict[str, int] = {}
        self._tenant: dict[str, str] = {}
        self._step = 0
        self.num_waiting: dict[str, int] = defaultdict(int)

    def submit(self, name, tenant, prompt, outputs):
        """`prompt` token ids; `outputs` tokens are generated."""
        sampling = SamplingParams(temperature=0.0, max_tokens=outputs, ignore_eos=True)
        self._arrival[name] = self._step
        self._tenant[name] = tenant
        self.num_waiting[tenant] += 1
        self.scheduler.add(
            Request(name, tuple(prompt), sampling, self.clock.now_s(), tenant=tenant)
        )

    def step(self):
        """One step; False when nothing is left to do."""
        plan = self.scheduler.schedule()
        if plan is None:
            return False
        for start in plan.started:
            name = start.sequence_id.rpartition("/")[0]
            if name not in self.outcome.waits:
                self.outcome.waits[name] = self._step - self._arrival[name]
                self.num_waiting[self._tenant[name]] -= 1
        for row in plan.rows:
            name = row.sequence_id.rpartition("/")[0]
            self.outcome.tokens[self._tenant[name]] += len(row.token_ids)
        rows = tuple(RowResult(row.sequence_id, (7,) if row.samples else ()) for row in plan.rows)
        self.clock.advance(STEP_S)
        self.scheduler.commit(plan, StepResult(plan.step_id, rows))
        self._step += 1
        self.outcome.preemptions = self.scheduler.counters.preemptions
        return True
