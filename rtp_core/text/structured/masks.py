"""Masks of the rows under a grammar or bans, made in threads while the model runs.

A grammar that takes its time delays its own row only: what is not there when tokens are drawn is
late, its row draws nothing in this step and is asked again in the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from rtp_core.api import PlanRow, SequenceStart, StructuredOutput
from rtp_core.errors import RtpError
from rtp_core.text.structured.bans import Bans
from rtp_core.text.structured.constraint import Constraint, GrammarError

if TYPE_CHECKING:
    from llguidance import LLMatcher

log = logging.getLogger("rtp.grammar")

PATIENCE_S = 0.005
LONE_PATIENCE_S = 0.1
"""How long tokens wait for late masks: beside rows that could go on, and without."""

FAILED = "the grammar became too complex for this text"
_THREADS = 2


class MatcherSource(Protocol):
    """Where matchers come from; `grammars.Grammars`."""

    def matcher(self, structured: StructuredOutput) -> LLMatcher:
        """At its beginning. Raises RtpError for a grammar that cannot be used."""
        ...


@dataclass(slots=True)
class MaskCounts:
    """Since start: masks made, seconds of threads they took, the longest, and late ones."""

    masks: int = 0
    seconds: float = 0.0
    longest_s: float = 0.0
    late: int = 0


@dataclass(slots=True)
class Masks:
    """Of one step, by sequence: int32 [1 + drafts, words]; who is late; why others must end."""

    ready: dict[str, np.ndarray] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    errors: dict[str, str] = field(default_factory=dict)


class Advance(NamedTuple):
    """How many of the tokens count, whether the text is complete with them; why it must end."""

    num_tokens: int
    complete: bool
    error: str | None = None


class _Held:
    """A sequence's constraint, opened in a thread, and the masks being made of it."""

    def __init__(self, start: SequenceStart, vocab_size: int) -> None:
        self.start = start
        self.structured = start.sampling.structured
        self.bans = Bans(start, vocab_size) if start.sampling.has_bans else None
        self.constraint: Constraint | None = None
        self.drafts: tuple[int, ...] = ()
        self.making: Future[np.ndarray] | None = None
        self.lock = threading.Lock()


class GrammarMasks:
    """Constraints of the sequences in the batch; used by the engine thread only."""

    def __init__(self, source: MatcherSource, vocab_size: int, eos: frozenset[int]) -> None:
        self.counts = MaskCounts()
        self._source = source
        self._vocab_size = vocab_size
        self._eos = eos
        self._held: dict[str, _Held] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._counting = threading.Lock()

    def start(self, start: SequenceStart) -> None:
        """A sequence joins the batch (again, after a preemption, with what it has drawn)."""
        if start.sampling.masked:
            self._held[start.sequence_id] = _Held(start, self._vocab_size)

    def release(self, sequence_id: str) -> None:
        """It left; unknown ids are ignored."""
        held = self._held.pop(sequence_id, None)
        if held is not None and held.making is not None:
            held.making.cancel()

    def begin(self, rows: Sequence[PlanRow]) -> None:
        """Have the masks made of those rows that draw under a grammar."""
        if not self._held:
            return
        for row in rows:
            held = self._held.get(row.sequence_id) if row.samples else None
            if held is None:
                continue
            drafts = tuple(row.token_ids[len(row.token_ids) - row.num_drafts :])
            if held.making is None or held.drafts != drafts:
                held.drafts = drafts
                held.making = self._threads().submit(self._make, held, drafts)

    def collect(self, rows: Sequence[PlanRow]) -> Masks | None:
        """The masks of rows that `begin` was told of; None if there are none."""
        if not self._held:
            return None
        making = {
            row.sequence_id: held.making
            for row in rows
            if (held := self._held.get(row.sequence_id)) is not None and held.making is not None
        }
        if not making:
            return None
        wait(making.values(), PATIENCE_S)
        if len(making) == len(rows) and not any(one.done() for one in making.values()):
            wait(making.values(), LONE_PATIENCE_S, return_when="FIRST_COMPLETED")
        masks = Masks()
        for sequence_id, future in making.items():
            if future.done():
                self._held[sequence_id].making = None
                self._sort(masks, sequence_id, future)
            else:
                masks.late.add(sequence_id)
        self.counts.late += len(masks.late)
        return masks

    def advance(self, sequence_id: str, token_ids: Sequence[int]) -> Advance:
        """These tokens were drawn."""
        held = self._held.get(sequence_id)
        if held is None:
            return Advance(len(token_ids), complete=False)
        if held.bans is not None:
            held.bans.advance(token_ids)
        if held.constraint is None:
            return Advance(len(token_ids), complete=False)
        try:
            count = held.constraint.advance(token_ids)
        except GrammarError as error:
            log.warning("grammar_failed sequence=%s error=%r", sequence_id, str(error)[:300])
            return Advance(0, complete=False, error=FAILED)
        return Advance(count, held.constraint.complete)

    def _sort(self, masks: Masks, sequence_id: str, future: Future[np.ndarray]) -> None:
        try:
            masks.ready[sequence_id] = future.result()
        except GrammarError as error:
            log.warning("grammar_failed sequence=%s error=%r", sequence_id, str(error)[:300])
            masks.errors[sequence_id] = FAILED
        except RtpError as error:
            masks.errors[sequence_id] = str(error)

    def _make(self, held: _Held, drafts: tuple[int, ...]) -> np.ndarray:
        with held.lock:
            began = time.perf_counter()
            masks = self._permitted(held, drafts)
            seconds = time.perf_counter() - began
        with self._counting:
            self.counts.masks += len(masks)
            self.counts.seconds += seconds
            self.counts.longest_s = max(self.counts.longest_s, seconds)
        return masks

    def _permitted(self, held: _Held, drafts: tuple[int, ...]) -> np.ndarray:
        """What its grammar allows and no ban forbids."""
        masks = [] if held.bans is None else [held.bans.masks(drafts)]
        if held.structured is not None:
            if held.constraint is None:
                matcher = self._source.matcher(held.structured)
                held.constraint = Constraint(matcher, held.start, self._vocab_size, self._eos)
            masks.append(held.constraint.masks(drafts))
        return masks[0] if len(masks) == 1 else masks[0] & masks[1]

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rtp-mask")
        return self._pool
