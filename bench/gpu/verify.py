"""What it costs to verify four drafts a sequence: whole steps of an engine, against plain ones.

The drafter here drafts four tokens for every row at once and costs nothing, so that a step of
given drafts is measured, whoever makes them. They are never right: a step gives one token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.gpu.driver import Driver
from bench.gpu.shape import SHAPE, build, close
from rtp_core.api import Draft, DraftRow
from rtp_core.speculation.ngram import NgramSpeculator

DRAFTS = (11, 12, 13, 14)
BATCHES = (1, 8, 32)


def propose(_: NgramSpeculator, rows: Sequence[DraftRow]) -> Sequence[Draft]:
    return [Draft(DRAFTS[: row.max_tokens]) for row in rows]


def found() -> Iterator[tuple[str, dict[str, Any]]]:
    """Plain steps of a plain engine first, then those with drafts."""
    plain = {batch: found["step_s"] for batch, found in steps(build(2048))}
    NgramSpeculator.propose = propose
    speculation = {"methods": ["ngram"], "max_draft_tokens": len(DRAFTS)}
    for batch, found in steps(build(2048, speculation=speculation)):
        ratio = found["step_s"] / plain[batch]
        yield f"verify {batch}", found | {"plain_s": plain[batch], "ratio": ratio}


def steps(engine: Any) -> Iterator[tuple[int, dict[str, float]]]:
    driver = Driver(engine, SHAPE["vocab_size"])
    driver.submit(64, 8)
    driver.drain()
    for batch in BATCHES:
        yield batch, driver.steps(batch, 1024)
    close(engine)
