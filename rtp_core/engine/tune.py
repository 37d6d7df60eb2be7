"""`rtp tune`: the fastest forms of a model's steps on this machine's GPU, found and kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.devices import pick_device, unusable_gpu
from rtp_core.engine.prepare import prepare
from rtp_core.engine.tune_search import PASSES, Axis, Remembered, Setting, descend
from rtp_core.engine.tuned_file import conditions_here, empty, save, tuned_file
from rtp_core.engine.tuned_kernels import tuned_here
from rtp_core.errors import ConfigError, RtpError

Progress = Callable[[int, int], None]
"""Called with (settings timed, the most there may be)."""
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """Steps of so many rows each, of texts of `length` tokens; `again`: also what is known."""

    rows: tuple[int, ...]
    length: int
    again: bool


class Steps(Protocol):
    """Decode steps of a model, which can be run in any form."""

    @property
    def name(self) -> str:
        """The same for models of equal shapes."""
        ...

    @property
    def context(self) -> int:
        """The bound of texts that these steps are recorded for."""
        ...

    def start(self, rows: int) -> Setting:
        """The forms that serve a step of so many rows now."""
        ...

    def axes(self, rows: int) -> Sequence[Axis]:
        """Where to look for better ones."""
        ...

    def compile(self, rows: int, settings: Sequence[Setting]) -> None:
        """Side by side, before any is timed."""
        ...

    def seconds(self, rows: int, setting: Setting) -> float:
        """Of a recorded step; infinity if it cannot run in this form."""
        ...


@dataclass(frozen=True, slots=True)
class Gain:
    """Seconds of a step of `rows` rows as it was and as it is now; `known` from a run before."""

    rows: int
    before_s: float
    after_s: float
    known: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """A document of `tuned_file`, saved as it grows."""

    document: dict[str, Any]
    file: Path

    def save(self) -> None:
        """Raises RtpError where nothing can be written."""
        try:
            save(self.file, self.document)
        except OSError as error:
            raise RtpError(
                f"{self.file} cannot be written: {error.strerror or error}",
                remedy="set RTP_CACHE_DIR to a directory you can write",
            ) from error


def tune_model(
    config: EngineConfig, asked: Asked, progress: Callable[[int], Progress]
) -> Iterator[Gain]:
    """Step by step; `progress` makes what is called during the search for so many rows.

    Raises ConfigError without a GPU, and for a model or a length whose steps have no forms.
    """
    _require_gpu(config)
    config = replace(config, loading=replace(config.loading, loader="dummy"))
    prepared = prepare(config)
    from rtp_core.engine.tune_setup import open_steps

    conditions = conditions_here()
    document = tuned_here(conditions) or empty(conditions)
    steps = open_steps(prepared, max(asked.rows), asked.length)
    steps.use(document)
    kept = Kept(document, tuned_file(conditions))
    for rows in asked.rows:
        yield tune_step(steps, rows, kept, progress(rows), again=asked.again)


def tune_step(steps: Steps, rows: int, kept: Kept, progress: Progress, *, again: bool) -> Gain:
    """Search from the forms that serve now, and keep what is faster.

    A search that was interrupted goes on; one that has ended is not repeated unless `again`.
    """
    document, key = kept.document, f"{steps.name} {rows}x1/{steps.context}"
    if key in document["steps"] and not again:
        return Gain(rows, **document["steps"][key], known=True)
    start, axes = steps.start(rows), steps.axes(rows)
    near = [start, *_neighbours(start, axes)]
    steps.compile(rows, near)
    trials = document["trials"].setdefault(key, {})
    timed, most = itertools.count(len(trials) + 1), 1 + PASSES * (len(near) - 1)

    def noted() -> None:
        kept.save()
        progress(min(next(timed), most), most)

    timer = Remembered(lambda setting: steps.seconds(rows, setting), trials, noted)
    best, _ = descend(start, axes, timer)
    progress(most, most)
    gain, setting = _confirmed(steps, rows, start, best)
    _keep(kept, setting, rows, steps.context)
    document["steps"][key] = {"before_s": gain.before_s, "after_s": gain.after_s}
    del document["trials"][key]
    kept.save()
    return gain


def _require_gpu(config: EngineConfig) -> None:
    if pick_device(config.model.device) == "cpu":
        why = "model.device is cpu" if config.model.device == "cpu" else unusable_gpu()
        raise ConfigError(
            "model.device",
            f"rtp tune times kernels of a GPU: {why}",
            remedy="run it on a machine with a GPU; what a CPU needs is measured when it starts",
        )


def _neighbours(start: Setting, axes: Sequence[Axis]) -> Iterator[Setting]:
    for axis in axes:
        for form in axis.others(start[axis.slot]):
            yield {**start, axis.slot: form}


def _confirmed(steps: Steps, rows: int, start: Setting, best: Setting) -> tuple[Gain, Setting]:
    """Both timed in turns: of many timings the shortest is partly luck."""
    turns = [(steps.seconds(rows, start), steps.seconds(rows, best)) for _ in range(_ROUNDS)]
    before, after = (min(times) for times in zip(*turns, strict=True))
    if before == float("inf"):
        raise RtpError(
            f"a step of {rows} rows cannot run in the forms that serve now",
            remedy="rtp serve shows what is wrong with them",
        )
    if after < before:
        return Gain(rows, before, after), best
    return Gain(rows, before, before), start


def _keep(kept: Kept, setting: Setting, rows: int, context: int) -> None:
    from rtp_kernels.gpu.tuned import use, with_setting

    kept.document.update(with_setting(kept.document, setting, rows, context))
    use(kept.document)
