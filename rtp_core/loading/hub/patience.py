"""Trying again: after what passes by itself, with growing pauses, not for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError

from rtp_core.loading.hub.refusals import HUB_ERRORS, passing
from rtp_core.observe.log import line

log = logging.getLogger("rtp.loading")
Result = TypeVar("Result")
_LONGEST_ASKED_S = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """`pauses_s` between tries that brought nothing; `timeout_s` of silence ends a try."""

    pauses_s: tuple[float, ...] = (1.0, 2.0, 4.0)
    timeout_s: float = 10.0
    sleep: Callable[[float], None] = time.sleep

    def call(
        self, what: str, work: Callable[[], Result], progress: Callable[[], int] = lambda: 0
    ) -> Result:
        """`work`'s result. A try after which `progress` grew starts the count again.

        Raises what `work` last raised.
        """
        tried, before = 0, progress()
        while True:
            try:
                return work()
            except HUB_ERRORS as error:
                after = progress()
                tried, before = (0 if after > before else tried), after
                if tried >= len(self.pauses_s) or not passing(error):
                    raise
                pause_s = _asked_s(error) or self.pauses_s[tried]
                tried += 1
                cause = f"{type(error).__name__}: {error}".splitlines()[0]
                log.warning(line("hub_retry", what=what, pause_s=pause_s, cause=cause))
                self.sleep(pause_s)


def _asked_s(error: Exception) -> float | None:
    """Seconds the server asked to wait, if it is not too much."""
    if not isinstance(error, HfHubHTTPError):
        return None
    asked = error.response.headers.get("retry-after", "")
    return min(float(asked), _LONGEST_ASKED_S) if asked.isdigit() else None
