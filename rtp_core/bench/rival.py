"""Other engines beside ours: the same model and prompts in turn, A B A B, in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rtp_core.bench.offline import Run
from rtp_core.bench.summary import spread
from rtp_core.config.environment import cache_dir
from rtp_core.errors import ModelError, RtpError
from rtp_core.loading.demo import resolve_model

NAMES = ("transformers", "llama-cpp-python")


@dataclass(frozen=True, slots=True)
class RivalRun:
    """Seconds to the first token, of each later step, and of the whole batch."""

    ttft_s: float
    step_s: tuple[float, ...]
    total_s: float


class Rival(Protocol):
    """`dtype` says in words what its weights are."""

    name: str
    version: str
    dtype: str

    def refusal(self, batch_size: int) -> str | None:
        """Why it cannot run so many prompts at once, or None."""
        ...

    def run(self, prompts: Sequence[Sequence[int]], output_len: int) -> RivalRun:
        """Greedy decoding of equal-length prompts to `output_len` tokens each."""
        ...


@dataclass(frozen=True, slots=True)
class Skipped:
    """A rival that takes no part, with the reason."""

    reason: str


def open_rival(name: str, model: str, dtype: str, threads: int, batch_size: int) -> Rival | Skipped:
    """A rival for the same `model`, or why there is none here."""
    try:
        rival = _OPEN[name](resolve_model(model, cache_dir()), dtype, threads)
    except RtpError as error:
        return Skipped(str(error))
    reason = rival.refusal(batch_size)
    return rival if reason is None else Skipped(reason)


def missing(name: str, command: str) -> ModelError:
    """The error for a package that cannot be imported."""
    return ModelError(f"{name} is not installed", remedy=command)


def against(rival: Rival | Skipped, ours: Sequence[Run], theirs: Sequence[RivalRun]) -> dict:
    """What the report says of one rival. Ratios are its seconds over ours: above 1 we win."""
    if isinstance(rival, Skipped):
        return {"skipped": rival.reason}
    pairs = {
        "ttft": ([r.ttft_s for r in ours if r.ttft_s is not None], [r.ttft_s for r in theirs]),
        "decode_step": (
            [step for run in ours for step in run.step_s],
            [step for run in theirs for step in run.step_s],
        ),
        "total": ([r.total_s for r in ours if r.total_s is not None], [r.total_s for r in theirs]),
    }
    times = {f"{name}_s": spread(rival_s) for name, (_, rival_s) in pairs.items()}
    ratios = {f"{name}_ratio": ratio(rival_s, our_s) for name, (our_s, rival_s) in pairs.items()}
    return {"version": rival.version, "dtype": rival.dtype, **times, **ratios}


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float | None]:
    """Of the minima and of the medians; the minimum is what a busy machine disturbs least."""
    if not theirs or not ours:
        return {"min": None, "median": None}
    return {
        "min": min(theirs) / min(ours),
        "median": statistics.median(theirs) / statistics.median(ours),
    }


def _transformers(path: Path, dtype: str, threads: int) -> Rival:
    del threads  # torch's own number of threads serves both
    from rtp_core.bench.transformers_rival import TransformersRival

    return TransformersRival(path, dtype)


def _llama_cpp(path: Path, dtype: str, threads: int) -> Rival:
    del dtype  # it computes with the file's own codes
    from rtp_core.bench.llama_cpp_rival import LlamaCppRival

    return LlamaCppRival(path, threads)


_OPEN: Mapping[str, Callable[[Path, str, int], Rival]] = {
    "transformers": _transformers,
    "llama-cpp-python": _llama_cpp,
}


def as_results(found: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the results that rivals have, absent when none was asked for."""
    return {"against": dict(found)} if found else {}
