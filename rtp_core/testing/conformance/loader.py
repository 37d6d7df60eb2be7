"""What every WeightLoader must keep: each tensor once, whole, from intact files only."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rtp_core.api import (
    LoadStats,
    ParameterSpec,
    Placement,
    WeightLoader,
    WeightPlan,
    WeightRule,
)
from rtp_core.errors import WeightLoadError
from rtp_core.loading.safetensors_header import read_header
from rtp_core.testing.checkpoints import RawTensor, random_tensor, write_safetensors
from rtp_core.testing.conformance.shape import has_members
from rtp_core.testing.conformance.verdict import Check, Make, raises, require, show
from rtp_core.testing.contexts import build_context
from rtp_core.testing.fakes.loading import RecordingSink

BIG_ROWS = 6 * 2**20 // 256


@dataclass(frozen=True, slots=True)
class Case:
    """A plan over files on disk, and the bytes each source must arrive with."""

    plan: WeightPlan
    content: dict[str, bytes]


def every_destination_is_filled_once(make: Make) -> None:
    """One file, tensors in the plan's order."""
    with _checkpoint([_mixed()]) as case:
        _require_filled(make, case, "one file")


def files_may_be_several(make: Make) -> None:
    """Tensors of one parameter may lie in different files."""
    first, second, third = _mixed()[:3], _mixed()[3:4], _mixed()[4:]
    with _checkpoint([first, second, third]) as case:
        _require_filled(make, case, "three files")


def order_in_the_file_may_be_any(make: Make) -> None:
    """Bytes lie in another order than the plan lists them."""
    with _checkpoint([_mixed()[::-1]], padding=3) as case:
        _require_filled(make, case, "a file in reverse order, at odd offsets")


def tensors_may_be_large_or_tiny(make: Make) -> None:
    """More than any buffer at once, between tensors of a few bytes."""
    tensors = [
        random_tensor("tiny.a", "F32", (1,), 1),
        random_tensor("big", "U8", (BIG_ROWS, 256), 2),
        random_tensor("tiny.b", "BF16", (3,), 3),
    ]
    with _checkpoint([tensors], padding=5) as case:
        _require_filled(make, case, "a tensor of 6 MiB between two of a few bytes")


def unplanned_tensors_are_passed_over(make: Make) -> None:
    """A file holds more than the plan wants."""
    with _checkpoint([_mixed()]) as case:
        kept = case.plan.placements[::2]
        part = WeightPlan(case.plan.parameters, kept, case.plan.file_bytes)
        names = {placement.tensor.name for placement in kept}
        content = {name: data for name, data in case.content.items() if name in names}
        _require_filled(make, Case(part, content), "a plan of every second tensor")


def progress_adds_up(make: Make) -> None:
    """Users see `progress` as a bar: it must end at 100 %."""
    with _checkpoint([_mixed()]) as case:
        steps, stats = _load(make, case, RecordingSink())
        require(
            sum(steps) == case.plan.num_bytes and all(step >= 0 for step in steps),
            f"progress() is told {case.plan.num_bytes} bytes in all",
            f"{sum(steps)} in {len(steps)} calls",
            "report the bytes of a tensor after it was placed, once",
        )
        require(
            isinstance(stats, LoadStats)
            and bool(stats.strategy)
            and stats.seconds >= 0
            and stats.bytes_read >= case.plan.num_bytes,
            "load() returns LoadStats with a strategy, seconds and at least the plan's bytes",
            repr(stats),
            "return LoadStats(name, bytes_read, seconds)",
        )


def truncated_files_are_errors(make: Make) -> None:
    """A file that lost its end must not become a model, nor make the loader wait."""
    with _checkpoint([_mixed()]) as case:
        file = Path(next(iter(case.plan.file_bytes)))
        file.write_bytes(file.read_bytes()[:-7])
        error = raises(
            lambda: _load(make, case, RecordingSink()),
            (WeightLoadError,),
            "a file truncated by 7 bytes raises WeightLoadError",
            "compare with plan.file_bytes, or check each read's length",
        )
        require(
            file.name in str(error),
            f"the error names the file {file.name}",
            str(error),
            "pass file= to WeightLoadError",
        )


def missing_files_are_errors(make: Make) -> None:
    """A file that vanished raises at once."""
    with _checkpoint([_mixed()]) as case:
        Path(next(iter(case.plan.file_bytes))).unlink()
        raises(
            lambda: _load(make, case, RecordingSink()),
            (WeightLoadError, OSError),
            "a missing file raises WeightLoadError or OSError",
            "let the error of open() pass",
        )


def errors_of_the_sink_stop_the_load(make: Make) -> None:
    """The sink refuses a tensor: the loader raises that error, and no other is hidden."""

    class Refusal(Exception):
        """Raised by the sink of this check."""

    class Refusing(RecordingSink):
        def place(self, placement: Placement, data: memoryview) -> None:
            super().place(placement, data)
            if len(self.placed) == 2:
                raise Refusal(placement.tensor.name)

    with _checkpoint([_mixed()]) as case:
        raises(
            lambda: _load(make, case, Refusing()),
            (Refusal,),
            "an exception of sink.place() leaves load() unchanged",
            "do not catch what the sink raises; in threads, carry it to the caller",
        )


CHECKS: tuple[Check, ...] = (
    has_members(WeightLoader),
    every_destination_is_filled_once,
    files_may_be_several,
    order_in_the_file_may_be_any,
    tensors_may_be_large_or_tiny,
    unplanned_tensors_are_passed_over,
    progress_adds_up,
    truncated_files_are_errors,
    missing_files_are_errors,
    errors_of_the_sink_stop_the_load,
)


def _mixed() -> list[RawTensor]:
    """Seven tensors of three dtypes; odd sizes, so that nothing is aligned by luck."""
    shapes = (("F32", (7, 5)), ("BF16", (3, 5)), ("BF16", (11, 5)), ("F16", (1, 5)),
              ("F32", (64, 33)), ("F32", (1,)), ("BF16", (129,)))  # fmt: skip
    return [
        random_tensor(f"layer.{number}.weight", dtype, shape, number)
        for number, (dtype, shape) in enumerate(shapes)
    ]


@contextmanager
def _checkpoint(files: Sequence[Sequence[RawTensor]], *, padding: int = 0) -> Iterator[Case]:
    with tempfile.TemporaryDirectory(prefix="rtp-loader-") as directory:
        tensors = []
        content: dict[str, bytes] = {}
        for number, raw in enumerate(files):
            path = Path(directory) / f"part-{number}.safetensors"
            write_safetensors(path, raw, padding=padding)
            tensors += sorted(read_header(path).values(), key=lambda one: one.name)
            content.update({one.name: one.data for one in raw})
        parameters = tuple(ParameterSpec(f"to.{one.name}", one.shape, "float32") for one in tensors)
        placements = tuple(
            Placement(one, WeightRule(one.name, f"to.{one.name}", 0, one.shape[0]))
            for one in tensors
        )
        sizes = {one.file: Path(one.file).stat().st_size for one in tensors}
        yield Case(WeightPlan(parameters, placements, sizes), content)


def _load(make: Make, case: Case, sink: RecordingSink) -> tuple[list[int], LoadStats]:
    steps: list[int] = []
    loader: WeightLoader = make(build_context())
    stats = loader.load(case.plan, sink, steps.append)
    return steps, stats


def _require_filled(make: Make, case: Case, what: str) -> None:
    sink = RecordingSink()
    _load(make, case, sink)
    counts = Counter(placement.rule.destination for placement, _ in sink.placed)
    wanted = Counter(placement.rule.destination for placement in case.plan.placements)
    missing, extra = wanted - counts, counts - wanted
    require(
        not missing and not extra,
        f"{what}: each of {len(wanted)} placements reaches the sink once",
        f"never placed: {show(missing)}, too often: {show(extra)}",
        "place every entry of plan.placements, and none twice",
    )
    for placement, data in sink.placed:
        name = placement.tensor.name
        require(
            data == case.content[name],
            f"{what}: {name} arrives as the {len(case.content[name])} bytes in the file",
            f"{len(data)} bytes" + (", others" if len(data) == len(case.content[name]) else ""),
            "read num_bytes at offset of placement.tensor.file; reuse no buffer before the return",
        )
