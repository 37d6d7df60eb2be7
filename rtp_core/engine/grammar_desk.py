"""Requests wait here, outside the queue, until their grammar is compiled."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from rtp_core.api import StructuredOutput
from rtp_core.errors import RtpError
from rtp_core.observe.snapshot import GrammarStats
from rtp_core.text.structured.grammars import Grammars
from rtp_core.text.structured.masks import MaskCounts

CONDITION = "grammar"
"""The name in `Request.waits_for`."""

COMPILE_S = 5.0
TOO_SLOW = f"structured_outputs: the grammar was not compiled within {COMPILE_S:g} s"
_THREADS = 2
_NAP_S = 0.001


class GrammarDesk:
    """Compiles in a few threads; `take` says who may go on. Belongs to the engine's thread."""

    def __init__(
        self,
        grammars: Grammars,
        masks: MaskCounts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.grammars = grammars
        self._masks = masks
        self._clock = clock
        self._compiling: dict[str, tuple[Future[Any], float]] = {}
        self._pool: ThreadPoolExecutor | None = None

    @property
    def busy(self) -> bool:
        """True while somebody waits."""
        return bool(self._compiling)

    @property
    def stats(self) -> GrammarStats:
        """Counts of grammars and of masks."""
        counts, masks = self.grammars.counts, self._masks
        return GrammarStats(
            counts.compiled,
            counts.cached,
            counts.refused,
            counts.seconds,
            masks.masks,
            masks.seconds,
            masks.longest_s,
            masks.late,
        )

    def submit(self, request_id: str, structured: StructuredOutput) -> None:
        """Have the grammar compiled, or found among those kept."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rtp-grammar")
        future = self._pool.submit(self.grammars.matcher, structured)
        self._compiling[request_id] = future, self._clock() + COMPILE_S

    def forget(self, request_id: str) -> None:
        """It was aborted; unknown ids are ignored."""
        found = self._compiling.pop(request_id, None)
        if found is not None:
            found[0].cancel()

    def take(self) -> list[tuple[str, str | None]]:
        """Whose grammar is there, and for whom it will not be, with the reason."""
        decided: list[tuple[str, str | None]] = []
        for request_id, (future, due_s) in list(self._compiling.items()):
            if future.done():
                decided.append((request_id, _reason(future)))
            elif self._clock() > due_s:
                future.cancel()
                decided.append((request_id, TOO_SLOW))
        for request_id, _ in decided:
            del self._compiling[request_id]
        return decided

    def nap(self) -> None:
        """There is nothing else to do: wait a little for one of them."""
        futures = [future for future, _ in self._compiling.values()]
        wait(futures, _NAP_S, return_when="FIRST_COMPLETED")


def _reason(future: Future[Any]) -> str | None:
    error = future.exception()
    if error is None:
        return None
    return str(error) if isinstance(error, RtpError) else "the grammar cannot be compiled"
