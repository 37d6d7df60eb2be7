"""An engine without a model that says what time it is: each token is the moment it was made.

A request's seed is the time between steps in microseconds; each step gives every running
choice one token. The vocabulary holds stamps of 0.1 ms, which repeat after ten seconds, then
one token a byte for prompts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from rtp_core.api import FinishReason, Request, RequestTiming, TokenEvent
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.contract import ModelInfo, Topic
from rtp_core.observe.snapshot import EngineStats

NUM_STAMPS = 100_000
TICK_S = 1e-4
PERIOD_S = NUM_STAMPS * TICK_S
EOS = NUM_STAMPS + 256
CORE_FILE = "engine_core"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def stamp_now() -> int:
    """The token of this moment, on the clock that all processes of a machine share."""
    return int(time.monotonic() / TICK_S) % NUM_STAMPS


def write_model(folder: Path, core: int) -> None:
    """Tokenizer and template, and the core that `build_engine` is to run on."""
    vocabulary = {f"Ġ{stamp:05d}": stamp for stamp in range(NUM_STAMPS)}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary |= {letter: NUM_STAMPS + number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / CORE_FILE).write_text(str(core))


def build_engine(config: EngineConfig, progress: Callable[[int, int], None]) -> ClockEngine:
    """Called in the engine's process, which moves to its own core."""
    folder = Path(config.model.path)
    os.sched_setaffinity(0, {int((folder / CORE_FILE).read_text())})
    return ClockEngine(folder)


class _Running:
    def __init__(self, request: Request, choice: int) -> None:
        self.request_id = request.request_id
        self.choice = choice
        self.left = request.sampling.max_tokens or 1
        self.arrival_s = self.first_s = time.monotonic()


class ClockEngine:
    """Implements `contract.Engine`. Steps come at fixed times, whoever is late."""

    def __init__(self, folder: Path) -> None:
        self.info = ModelInfo(
            "clock", "ClockForCausalLM", 2**20, EOS + 1, (EOS,), str(folder), "float32", {}
        )
        self._running: list[_Running] = []
        self._step_s = 0.0
        self._due_s = 0.0
        self._num_tokens = 0

    @property
    def has_work(self) -> bool:
        return bool(self._running)

    def submit(self, request: Request) -> None:
        if not self._running:
            self._due_s = time.monotonic()
        self._step_s = 1e-6 * (request.sampling.seed or 0)
        self._running += [_Running(request, choice) for choice in range(request.sampling.n)]

    def abort(self, request_id: str, choice: int | None = None) -> None:
        self._running = [
            one
            for one in self._running
            if one.request_id != request_id or choice not in (None, one.choice)
        ]

    def step(self) -> tuple[TokenEvent, ...]:
        self._due_s = max(self._due_s + self._step_s, time.monotonic() - 10 * self._step_s)
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        tokens = (stamp_now(),)
        events = tuple(self._event(one, tokens) for one in self._running)
        self._running = [one for one in self._running if one.left]
        self._num_tokens += len(events)
        return events

    def _event(self, one: _Running, tokens: tuple[int, ...]) -> TokenEvent:
        one.left -= 1
        if one.left:
            return TokenEvent(one.request_id, one.choice, tokens)
        timing = RequestTiming(one.arrival_s, one.arrival_s, one.first_s, time.monotonic())
        return TokenEvent(
            one.request_id, one.choice, tokens, None, FinishReason.LENGTH, timing=timing
        )

    def stats(self) -> EngineStats:
        return EngineStats(num_running=len(self._running), generation_tokens=self._num_tokens)

    def explain(self) -> dict[str, Any]:
        return {"features": []}

    def report(self, topic: Topic) -> dict[str, Any]:
        return {"topic": topic}

    def reset_prefix_cache(self) -> bool:
        return True

    def close(self) -> None:
        self._running.clear()
