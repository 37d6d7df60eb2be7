"""A prompt of 512 tokens that joins a step of 64 decoding texts."""

from __future__ import annotations

import statistics
import time

from gpu.session import WARM, Session
from gpu.work import Card, Work

DECODING, CHUNK, CONTEXT = 64, 512, 1024
_EVERY, _CHUNKS = 6, 10
_SPREAD = 1
"""Steps before and after that a chunk delays too: the host queues them while it runs, or queues
the chunk while they do."""


def chunk(session: Session, work: Work, card: Card) -> dict[str, float]:
    """Median seconds of such a step against the sum of both floors, and of a step without it.

    What a chunk costs the steps beside it is counted as its own. The first chunks are left out:
    libraries plan for their shape.
    """
    steps = _steps(session)
    at = [number for number, (_, with_chunk) in enumerate(steps) if with_chunk]
    windows = [range(number - _SPREAD, number + _SPREAD + 1) for number in at]
    inside = {number for window in windows for number in window}
    decode = statistics.median(gap for number, (gap, _) in enumerate(steps) if number not in inside)
    whole = [sum(steps[number][0] for number in window) for window in windows[2:]]
    step = statistics.median(whole) - 2 * _SPREAD * decode
    floor = card.prompt_floor(work, CHUNK) + card.decode_floor(work, DECODING, CONTEXT)
    return {
        "step_s": step,
        "decode_s": decode,
        "floor_s": floor,
        "ratio": step / floor,
        "over_decode_and_prompt_floor": step / (decode + card.prompt_floor(work, CHUNK)),
    }


def _steps(session: Session) -> list[tuple[float, bool]]:
    """Seconds between deliveries to all texts, and whether a chunk's token was among them."""
    engine = session.engine
    for _ in range(DECODING):
        session.submit(CONTEXT - 32, 64 + _EVERY * _CHUNKS)
    steps: list[tuple[float, bool]] = []
    chunks: set[str] = set()
    full, last = 0, 0.0
    while engine.has_work:
        events = engine.step()
        now = time.perf_counter()
        names = {event.request_id for event in events}
        if len(names - chunks) == DECODING:
            full += 1
            if full > WARM:
                steps.append((now - last, bool(names & chunks)))
            if full % _EVERY == 0 and len(chunks) < _CHUNKS:
                chunks.add(session.submit(CHUNK, 1))
        last = now
    return steps
