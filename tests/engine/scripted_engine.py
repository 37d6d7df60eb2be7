"""An engine without a model: token k of a choice is k. What goes wrong is written in a script.

In a process the script is the option table of the plugin name ``script``. First prompt tokens
are cues: the engine then fails in the way named.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtp_core.api import FinishReason, Request, RequestTiming, TokenEvent, TokenLogprob
from rtp_core.engine.contract import ModelInfo
from rtp_core.errors import ConfigError, DeviceLostError, RequestError
from rtp_core.observe.snapshot import EngineStats

REFUSE, RAISE_IN_SUBMIT, RAISE_IN_STEP, DIE_IN_STEP, HANG_IN_STEP, HUGE_STEP = range(1001, 1007)
LOSE_DEVICE = 1007

INFO = ModelInfo("scripted", "ScriptedForCausalLM", 4096, 2000, (2,), "/nowhere", "float32", {})


@dataclass
class Sequence:
    request: Request
    choice: int
    prefill: int
    emitted: int = 0


class ScriptedEngine:
    """`delay_s` a step, `slots` sequences at once, one prompt token a step of prefill."""

    def __init__(self, delay_s: float = 0.0, slots: int = 10_000, prefill: bool = False) -> None:
        self.delay_s = delay_s
        self.slots = slots
        self.prefill = prefill
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.ended: deque[TokenEvent] = deque()
        self.num_steps = 0
        self.num_stats = 0
        self.generated = 0
        self.aborted: list[tuple[str, int | None]] = []
        self.closed = 0

    info = INFO
    device = "cpu"

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running or self.ended)

    def submit(self, request: Request) -> None:
        cue = request.prompt_token_ids[0]
        if cue == REFUSE:
            raise RequestError(
                "messages",
                "maximum context length is 4096 tokens",
                status=413,
                code="context_length_exceeded",
                remedy="shorten the prompt",
            )
        for choice in range(request.sampling.n):
            prefill = len(request.prompt_token_ids) - 1 if self.prefill else 0
            self.waiting.append(Sequence(request, choice, prefill))
        if cue == RAISE_IN_SUBMIT:
            raise TypeError("secret detail of the scheduler")

    def abort(self, request_id: str, choice: int | None = None) -> None:
        self.aborted.append((request_id, choice))
        for sequence in [*self.waiting, *self.running]:
            if sequence.request.request_id == request_id and choice in (None, sequence.choice):
                self._drop(sequence)
                self.ended.append(
                    TokenEvent(request_id, sequence.choice, (), finish_reason=FinishReason.ABORT)
                )

    def step(self) -> tuple[TokenEvent, ...]:
        time.sleep(self.delay_s)
        self.num_steps += 1
        while self.waiting and len(self.running) < self.slots:
            self.running.append(self.waiting.popleft())
        events = [self._event(sequence) for sequence in list(self.running)]
        done = [*self.ended, *(event for event in events if event is not None)]
        self.ended.clear()
        return tuple(done)

    def stats(self) -> EngineStats:
        self.num_stats += 1
        return EngineStats(
            num_running=len(self.running),
            num_waiting=len(self.waiting),
            num_steps=self.num_steps,
            generation_tokens=self.generated,
            kv_usage=float("nan"),
        )

    def explain(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "loader": {"offer": "scripted"}, "device": self.device}

    def report(self, topic: str) -> dict[str, Any]:
        return {"topic": topic}

    def reset_prefix_cache(self) -> bool:
        return not self.running

    def close(self) -> None:
        self.closed += 1

    def _event(self, sequence: Sequence) -> TokenEvent | None:
        request = sequence.request
        tokens = self._act(request.prompt_token_ids[0], sequence)
        if sequence.prefill > 0:
            sequence.prefill -= 1
            return None
        sequence.emitted += 1
        self.generated += len(tokens)
        last = sequence.emitted == request.sampling.max_tokens
        if last:
            self._drop(sequence)
        return TokenEvent(
            request.request_id,
            sequence.choice,
            tokens,
            _logprobs(request, tokens),
            FinishReason.LENGTH if last else None,
            num_cached_tokens=3,
            timing=RequestTiming(1.0, 2.0, 3.0, 4.0) if last else None,
        )

    def _act(self, cue: int, sequence: Sequence) -> tuple[int, ...]:
        if cue == RAISE_IN_STEP and sequence.emitted == 2:
            raise ValueError("secret detail of the model")
        if cue == LOSE_DEVICE and sequence.emitted == 2:
            raise DeviceLostError("the GPU cannot be used by this process any more: Xid 31")
        if cue == DIE_IN_STEP and sequence.emitted == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if cue == HANG_IN_STEP and sequence.emitted == 2:
            time.sleep(60)
        if cue == HUGE_STEP and sequence.emitted == 2:
            return tuple(range(2**30, 2**30 + 8 * 2**20))
        return (sequence.emitted,)

    def _drop(self, sequence: Sequence) -> None:
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)


def _logprobs(request: Request, tokens: tuple[int, ...]) -> tuple[TokenLogprob, ...] | None:
    width = request.sampling.logprobs
    if width is None:
        return None
    top = tuple((token, -float(token)) for token in range(width))
    return tuple(TokenLogprob(token, float("-inf"), top) for token in tokens)


def build(config, progress=None) -> ScriptedEngine:
    """Builder for a process; the script says how loading goes."""
    script = dict(config.plugins.get("script", {}))
    _load(script.pop("load", "well"), script.pop("marker", None), progress)
    engine = ScriptedEngine(**script)
    engine.device = config.model.device
    return engine


def _load(manner: str, marker: str | None, progress) -> None:
    if marker is not None:
        with Path(marker).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
    match manner:
        case "slow":
            for done in range(0, 1000, 100):
                progress(done, 1000)
                time.sleep(1)
        case "config":
            raise ConfigError("kv.block_size", "must divide 256", remedy="set 16")
        case "bug":
            raise KeyError("model.layers.0")
        case "exit":
            sys.exit(7)
        case _:
            progress(500, 1000)
            progress(1000, 1000)
