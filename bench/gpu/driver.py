"""Requests of random tokens into an engine, and the times of its deliveries."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any

import torch

from rtp_core.api import Request, SamplingParams
from rtp_core.engine.core import EngineCore

STEPS = 48


class Driver:
    def __init__(self, engine: EngineCore, vocab: int) -> None:
        self.engine = engine
        self.vocab = vocab
        self.count = 0

    def submit(self, length: int, output: int, **sampling: Any) -> None:
        self.count += 1
        generator = torch.Generator().manual_seed(self.count)
        ids = torch.randint(0, self.vocab, (length,), generator=generator).tolist()
        params = SamplingParams(
            **{"temperature": 0.0, **sampling}, max_tokens=output, ignore_eos=True
        )
        self.engine.submit(Request(f"r{self.count}", tuple(ids), params, time.monotonic()))

    def drain(self) -> int:
        tokens = 0
        while self.engine.has_work:
            tokens += sum(len(event.token_ids) for event in self.engine.step())
        return tokens

    def steps(self, batch: int, context: int, **sampling: Any) -> dict:
        """Decode steps of a full batch around `context` tokens."""
        for _ in range(batch):
            self.submit(context - STEPS // 2, STEPS + 24, **sampling)
        deliveries: list[float] = []
        device: list[float] = []
        while self.engine.has_work:
            before = self.engine.stats()
            events = self.engine.step()
            if len(events) == batch and all(len(event.token_ids) for event in events):
                deliveries.append(time.perf_counter())
                after = self.engine.stats()
                spent = after.step_seconds - before.step_seconds
                device.append(spent - (after.step_host_seconds - before.step_host_seconds))
        gaps = [b - a for a, b in itertools.pairwise(deliveries[4:])][:STEPS]
        return {
            "step_s": statistics.median(gaps),
            "p95_s": sorted(gaps)[int(len(gaps) * 0.95)],
            "device_s": statistics.median(device[4:STEPS]),
        }

    def chunks(self, batch: int, context: int, length: int, repeats: int) -> float:
        """Seconds of a step of `batch` decoding rows that takes `length` tokens of a prompt too."""
        for _ in range(batch):
            self.submit(context - repeats, 8 * repeats)
        found = []
        for _ in range(repeats):
            gaps, before = [], self._delivery(batch)
            self.submit(length, 1)
            for _ in range(4):
                now = self._delivery(batch)
                gaps.append(now - before)
                before = now
            found.append(max(gaps))
        self.drain()
        return statistics.median(found)

    def _delivery(self, batch: int) -> float:
        """When the next tokens of all decoding rows come."""
        while True:
            events = self.engine.step()
            if sum(1 for event in events if event.token_ids) >= batch:
                return time.perf_counter()

    def prompts(self, batch: int, length: int) -> float:
        """Seconds from the first prompt to the last first token; the second of two runs."""
        for _ in range(2):
            for _ in range(batch):
                self.submit(length, 1)
            began = time.perf_counter()
            self.drain()
            seconds = time.perf_counter() - began
        return seconds

    def all_at_once(self, number: int, length: int, output: int) -> dict:
        for _ in range(number):
            self.submit(length, output)
        began = time.perf_counter()
        tokens = self.drain()
        seconds = time.perf_counter() - began
        return {"requests_per_s": number / seconds, "output_tokens_per_s": tokens / seconds}
