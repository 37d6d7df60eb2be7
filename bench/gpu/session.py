"""An engine with random weights, and requests that keep it busy in known ways."""

from __future__ import annotations

import gc
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gpu.inside import replay_seconds
from rtp_core.api import Request, SamplingParams, TokenEvent
from rtp_core.config.read import load_config
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.core import EngineCore

STEPS = 48
WARM = 4
"""Full steps before the bare program is timed; two more until the pipeline is full again."""
MARGIN = 24
"""Tokens beyond STEPS: prompts of a large batch take several steps, and some texts start early."""


def configuration(shape: Mapping[str, Any], folder: str, **sections: Any) -> EngineConfig:
    """An engine for the shape, its config.json in `folder`; prefix cache off."""
    (Path(folder) / "config.json").write_text(json.dumps(shape))
    fixed = {"model": folder, "loading": {"loader": "dummy"}, "kv": {"prefix_caching": False}}
    return load_config(overrides=fixed | sections)


def build(shape: Mapping[str, Any], **sections: Any) -> EngineCore:
    with tempfile.TemporaryDirectory() as folder:
        return build_engine(configuration(shape, folder, **sections))


def release(engine: EngineCore) -> None:
    """End an engine and give its memory back, whoever still refers to it."""
    engine.close()
    engine.__dict__.clear()
    gc.collect()
    torch.cuda.empty_cache()


def prompt(seed: int, length: int, vocab: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, vocab, (length,), generator=generator).tolist())


class Session:
    """Submits random prompts; `vocab` bounds their ids."""

    def __init__(self, engine: EngineCore, vocab: int) -> None:
        self.engine = engine
        self.vocab = vocab
        self.count = 0

    def submit(self, length: int, output: int, *, seed: int | None = None, **sampling: Any) -> str:
        """The request's name; prompts of equal seeds are equal."""
        self.count += 1
        ids = prompt(self.count if seed is None else seed, length, self.vocab)
        params = SamplingParams(
            **{"temperature": 0.0, **sampling}, max_tokens=output, ignore_eos=True
        )
        name = f"r{self.count}"
        self.engine.submit(Request(name, ids, params, time.monotonic()))
        return name

    def drain(self) -> int:
        """Tokens of everything that was submitted."""
        tokens = 0
        while self.engine.has_work:
            tokens += sum(len(event.token_ids) for event in self.engine.step())
        return tokens

    def texts(self, seeds: range, length: int, output: int) -> dict[int, list[int]]:
        """Answers by seed of the prompt."""
        names = {self.submit(length, output, seed=seed): seed for seed in seeds}
        found: dict[int, list[int]] = {seed: [] for seed in seeds}
        while self.engine.has_work:
            for event in self.engine.step():
                found[names[event.request_id]].extend(event.token_ids)
        return found

    def steps(self, batch: int, new_tokens: int = 1, bound: int | None = None) -> dict[str, float]:
        """Full steps of what was submitted, and the bare program that serves them.

        A step lasts from one delivery of tokens to the next. `bound` is a bound of the texts'
        lengths; without one no program is timed.
        """
        deliveries: list[float] = []
        device: list[float] = []
        tokens: list[int] = []
        found: dict[str, float] = {}
        while self.engine.has_work:
            before = self.engine.stats()
            events = self.engine.step()
            if not _full(events, batch):
                continue
            deliveries.append(time.perf_counter())
            after = self.engine.stats()
            spent = after.step_seconds - before.step_seconds
            device.append(spent - (after.step_host_seconds - before.step_host_seconds))
            tokens.append(sum(len(event.token_ids) for event in events))
            if bound is not None and len(deliveries) == WARM:
                found["graph_s"] = replay_seconds(self.engine, batch, new_tokens, bound)
        first = WARM + 2
        gaps = [b - a for a, b in itertools.pairwise(deliveries[first:])][:STEPS]
        found["step_s"] = statistics.median(gaps)
        found["p95_s"] = sorted(gaps)[int(len(gaps) * 0.95)]
        found["device_s"] = statistics.median(device[first : first + STEPS])
        found["tokens_per_row"] = statistics.mean(tokens[first : first + STEPS]) / batch
        if "graph_s" in found:
            found["step_over_graph"] = found["step_s"] / found["graph_s"]
        return found

    def decode(self, batch: int, context: int, **sampling: Any) -> dict[str, float]:
        """Decode steps of a full batch around `context` tokens."""
        for _ in range(batch):
            self.submit(context - STEPS // 2, STEPS + MARGIN, **sampling)
        return self.steps(batch, bound=None if sampling else context + STEPS)

    def prompts(self, batch: int, length: int) -> float:
        """Seconds from the first prompt to the last first token; the second of two runs."""
        seconds = 0.0
        for _ in range(2):
            for _ in range(batch):
                self.submit(length, 1)
            began = time.perf_counter()
            self.drain()
            seconds = time.perf_counter() - began
        return seconds

    def all_at_once(self, number: int, length: int, output: int) -> dict[str, float]:
        for _ in range(number):
            self.submit(length, output)
        began = time.perf_counter()
        tokens = self.drain()
        seconds = time.perf_counter() - began
        return {"requests_per_s": number / seconds, "output_tokens_per_s": tokens / seconds}


def _full(events: tuple[TokenEvent, ...], batch: int) -> bool:
    return len(events) == batch and all(event.token_ids for event in events)
