"""What the scheduler costs: the real Scheduler and KVCache in steady decode, no model.

Every running sequence decodes one token a step; only `schedule` and `commit` are timed, in CPU
seconds of this thread. Simulations with and without prefix caching (and no hits) take turns
in short runs, so that a busy machine slows both alike; medians are over the runs.

    python bench/scheduler_simulation.py --json results/scheduler.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from rtp_core import __version__
from rtp_core.api import (
    EngineLimits,
    KVGroup,
    KVPlane,
    PlanRow,
    Request,
    RowResult,
    SamplingParams,
    StepPlan,
    StepResult,
    TokenEvent,
)
from rtp_core.kv.block_hash import BlockHasher
from rtp_core.kv.block_space import BlockSpace
from rtp_core.kv.cache import CacheSettings, KVCache
from rtp_core.scheduling.policies import ArrivalPolicy
from rtp_core.scheduling.scheduler import Scheduler

BLOCK_SIZE = 16
PROMPT = 64
VOCABULARY = 50_000
TARGET = 100_000


class StepClock:
    """Time that moves only when told to."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        """Seconds since the start of the simulation."""
        return self.time_s


@dataclass(frozen=True, slots=True)
class Timing:
    """CPU seconds of one run, apart for the two halves of a step."""

    schedule_s: float
    commit_s: float
    num_rows: int

    @property
    def row_s(self) -> float:
        """Seconds a row and step."""
        return (self.schedule_s + self.commit_s) / self.num_rows


class Simulation:
    """`num_sequences` decoding side by side, with fake results."""

    def __init__(self, num_sequences: int, num_steps: int, *, prefix_caching: bool) -> None:
        plane = KVPlane(1, 1, "float32")
        length = PROMPT + num_steps
        blocks = num_sequences * (-(-length // BLOCK_SIZE) + 1) * 11 // 10
        cache = KVCache(
            [KVGroup("full", (0,), (plane, plane))],
            [BlockSpace(blocks)],
            BlockHasher(bytes(32), BLOCK_SIZE),
            CacheSettings(BLOCK_SIZE, "simulation", prefix_caching),
        )
        limits = EngineLimits(length, num_sequences, num_sequences * PROMPT, BLOCK_SIZE, 0)
        self._scheduler = Scheduler(ArrivalPolicy(), cache, limits, StepClock(), frozenset())
        self._draw = random.Random(0)
        sampling = SamplingParams(temperature=0.0, max_tokens=num_steps, ignore_eos=True)
        for number in range(num_sequences):
            prompt = tuple(self._draw.randrange(VOCABULARY) for _ in range(PROMPT))
            self._scheduler.add(Request(f"request-{number}", prompt, sampling, float(number)))
        self._results(self._scheduler.schedule())

    def run(self, num_steps: int) -> Timing:
        """Time `num_steps` steps of pure decoding."""
        schedule = commit = 0
        rows = 0
        for _ in range(num_steps):
            at = time.thread_time_ns()
            plan = self._scheduler.schedule()
            schedule += time.thread_time_ns() - at
            commit += self._results(plan)
            rows += len(plan.rows) if plan else 0
        return Timing(schedule / 1e9, commit / 1e9, rows)

    def _results(self, plan: StepPlan | None) -> int:
        assert plan is not None
        rows = tuple(
            RowResult(row.sequence_id, (self._draw.randrange(VOCABULARY),)) for row in plan.rows
        )
        result = StepResult(plan.step_id, rows)
        at = time.thread_time_ns()
        events = self._scheduler.commit(plan, result)
        spent = time.thread_time_ns() - at
        assert len(events) == len(plan.rows)
        return spent


def compare(num_sequences: int, num_runs: int, run_steps: int) -> dict[str, float]:
    """Sequence-steps a second without and with prefix caching, runs taking turns."""
    steps = (num_runs + 1) * run_steps + 2
    off = Simulation(num_sequences, steps, prefix_caching=False)
    on = Simulation(num_sequences, steps, prefix_caching=True)
    for simulation in (off, on):
        simulation.run(run_steps)
    plain: list[Timing] = []
    cached: list[Timing] = []
    for number in range(num_runs):
        order = ((off, plain), (on, cached))
        for simulation, timings in order if number % 2 else reversed(order):
            timings.append(simulation.run(run_steps))
    added = [a.row_s - b.row_s for a, b in zip(cached, plain, strict=True)]
    plain_row = statistics.median(one.row_s for one in plain)
    return {
        "num_sequences": num_sequences,
        "plain_rows_per_s": 1 / plain_row,
        "cached_rows_per_s": 1 / statistics.median(one.row_s for one in cached),
        "schedule_us_per_row": 1e6 * statistics.median(t.schedule_s / t.num_rows for t in cached),
        "commit_us_per_row": 1e6 * statistics.median(t.commit_s / t.num_rows for t in cached),
        "caching_us_per_row": 1e6 * statistics.median(added),
        "caching_share_of_scheduler": statistics.median(added) / plain_row,
    }


def object_costs(count: int = 20_000) -> dict[str, float]:
    """Microseconds to make what crosses the scheduler's borders for one row and step."""
    table = ([1, 2, 3],)

    def cost(make: object) -> float:
        assert callable(make)
        at = time.thread_time_ns()
        for _ in range(count):
            make()
        return (time.thread_time_ns() - at) / count / 1e3

    makers = {
        "plan_row_us": lambda: PlanRow("request-1/0", [7], 100, 0, True, table),
        "row_result_us": lambda: RowResult("request-1/0", (7,)),
        "token_event_us": lambda: TokenEvent("request-1", 0, (7,), None, num_cached_tokens=0),
    }
    return {name: statistics.median(cost(make) for _ in range(5)) for name, make in makers.items()}


def main() -> None:
    """Measure and print; ``--json FILE`` keeps the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--runs", type=int, default=31)
    parser.add_argument("--run-steps", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    results = [compare(count, options.runs, options.run_steps) for count in options.sequences]
    report = {
        "schema": 1,
        "command": "scheduler_simulation",
        "version": __version__,
        "device": f"{platform.machine()}, {os.cpu_count()} cores, load {load_before:.1f}",
        "params": {
            "block_size": BLOCK_SIZE,
            "runs": options.runs,
            "run_steps": options.run_steps,
            "target_rows_per_s": TARGET,
        },
        "results": {"decode": results, "objects": object_costs()},
    }
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
