"""Requests again, after growing pauses that do not fall together, and not for ever."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from rtp_core.errors import WeightLoadError
from rtp_core.observe.log import line

log = logging.getLogger("rtp.loading")
Result = TypeVar("Result")


class PassingError(Exception):
    """What another try may cure: a busy server, a broken connection, silence."""


@dataclass(frozen=True, slots=True)
class Patience:
    """`pauses_s` between tries, each shortened by up to half so that many readers spread."""

    pauses_s: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 4.0)
    timeout_s: float = 15.0
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = field(default=random.random)

    def call(self, where: str, work: Callable[[], Result]) -> Result:
        """`work`'s result. Raises WeightLoadError with the last cause when patience ends."""
        for pause_s in self.pauses_s:
            try:
                return work()
            except PassingError as error:
                log.warning(line("object_retry", object=where, cause=str(error), pause_s=pause_s))
                self.sleep(pause_s * (1 - self.chance() / 2))
        try:
            return work()
        except PassingError as error:
            raise WeightLoadError(
                f"{error}, {len(self.pauses_s) + 1} times",
                file=where,
                remedy="check the store and the network, then start again",
            ) from error
