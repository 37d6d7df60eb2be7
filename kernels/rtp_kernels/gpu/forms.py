"""Which kernel, in which blocks, multiplies so many rows by a matrix.

Measured winners are data: `configurations/sm_90.json` holds, by operation and shape of the
weight ("outputs x inputs"), a form for up to so many rows. What was tuned on the machine at hand
(`tuned`) comes before it; other shapes get a form by the rules that the winners follow. Rows are
known when a step is recorded, so nothing is decided on the
device; nothing is timed while a model serves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from triton import knobs

HOPPER = 90
MOST_SWAPPED_ROWS = 128
"""More tokens than this fill the matrix instruction either way round."""
_PROGRAMS = 128
"""Programs that occupy a device of 132 multiprocessors when each takes one alone."""
_SHARED_BYTES = 200 * 1024


@dataclass(frozen=True, slots=True)
class Gemv:
    """`gemv`: for one row."""

    block_n: int
    block_k: int
    unroll: int = 1
    warps: int = 4


@dataclass(frozen=True, slots=True)
class Swapped:
    """`swapped_gemm`: for 2 to 128 rows. `tiles`: weights by tensor descriptors."""

    block_n: int
    block_k: int
    stages: int
    splits: int = 1
    warps: int = 4
    tiles: bool = True
    prefetch: int = 0


@dataclass(frozen=True, slots=True)
class Library:
    """cuBLAS, and a kernel for what goes before and after the product."""


Form = Gemv | Swapped | Library
Choose = Callable[[str, int, int, int], Form]
"""(operation, rows, outputs, inputs) -> form; outputs counts the weight's rows."""
Table = Mapping[str, Mapping[str, Mapping[int, Form]]]
"""operation -> "outputs x inputs" -> most rows -> form."""
_FORMS: dict[str, type[Gemv] | type[Swapped] | type[Library]] = {
    "gemv": Gemv,
    "swapped": Swapped,
    "library": Library,
}
BUCKETS = (1, 16, 32, 64, 128, 256)
"""Numbers of rows up to which a form is tuned; smaller ones in between take it too."""
SHARED = {
    "norm_gate_up_gelu": "norm_gate_up",
    "linear_norm_residual": "linear_residual",
}
"""Operations that take the forms of another."""
GATED, SPLITTABLE, HEAD = "norm_gate_up", "linear_residual", "head"
_GEMV = {GATED: (2, 2048, 8192), HEAD: (4, 1024, 16384)}
"""Outputs of a program, columns of a tile, and elements of all tiles loaded up front."""


@cache
def architecture() -> int:
    """Compute capability of this process's device, 9.0 as 90; the interpreter stands for 90."""
    if knobs.runtime.interpret or not torch.cuda.is_available():
        return HOPPER
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def shape_key(outputs: int, inputs: int) -> str:
    """As tables name the shape of a weight."""
    return f"{outputs}x{inputs}"


def choice(table: Table, arch: int) -> Choose:
    """A function that looks a form up in `table`, and goes by rules for what is not in it."""

    @cache
    def choose(operation: str, rows: int, outputs: int, inputs: int) -> Form:
        operation = SHARED.get(operation, operation)
        listed = table.get(operation, {}).get(shape_key(outputs, inputs), {})
        limits = [limit for limit in listed if limit >= rows]
        if rows and limits:
            return listed[min(limits)]
        return by_rule(operation, rows, outputs, inputs, arch)

    return choose


@cache
def default() -> Choose:
    """What is preferred, else by the table that is shipped for this process's device."""
    arch = architecture()
    file = files("rtp_kernels.gpu") / "configurations" / f"sm_{arch}.json"
    shipped = choice(read(json.loads(file.read_text())) if file.is_file() else {}, arch)

    def choose(operation: str, rows: int, outputs: int, inputs: int) -> Form:
        found = _preferred(operation, rows, outputs, inputs) if _TUNED else None
        return found or shipped(operation, rows, outputs, inputs)

    return choose


def prefer(table: Table) -> None:
    """Put these forms before all others, at once and also for models that are built already.

    Limits are those of BUCKETS; a bucket that is not listed goes by what is shipped.
    """
    _TUNED.clear()
    _TUNED.update(table)


def bucket(rows: int) -> int | None:
    """The limit in BUCKETS that `rows` come under; None for 0 and for too many."""
    return next((limit for limit in BUCKETS if limit >= rows), None) if rows else None


_TUNED: dict[str, Mapping[str, Mapping[int, Form]]] = {}


def _preferred(operation: str, rows: int, outputs: int, inputs: int) -> Form | None:
    shapes = _TUNED.get(SHARED.get(operation, operation), {})
    limit = bucket(rows)
    return None if limit is None else shapes.get(shape_key(outputs, inputs), {}).get(limit)


def by_rule(operation: str, rows: int, outputs: int, inputs: int, arch: int) -> Form:
    """A form for a shape that nobody measured.

    The swapped product rests on Hopper's instruction and tensor descriptors; other devices
    have the GEMV and cuBLAS.
    """
    if rows == 1:
        return _gemv(operation, outputs, inputs)
    if arch != HOPPER or rows == 0 or rows > MOST_SWAPPED_ROWS or inputs % 8:
        return Library()
    if operation == GATED:
        return Library() if 32 < rows <= 64 else _gated(rows)
    if operation == SPLITTABLE:
        return _splittable(rows, outputs, inputs)
    return _head(rows) if operation == HEAD else _unsplit(rows, inputs)


def _gemv(operation: str, outputs: int, inputs: int) -> Gemv:
    """Two programs and more a multiprocessor, each with as many loads under way as fit."""
    block_n, most_k, elements = _GEMV.get(operation, (8, 1024, 8192))
    if operation == GATED:
        outputs //= 2
    while block_n > 1 and outputs < 2 * _PROGRAMS * block_n:
        block_n //= 2
    block_k, unroll = min(most_k, power_of_2(inputs)), 4
    while unroll > 1 and (
        block_n * block_k * unroll > elements or (unroll // 2) * block_k >= inputs
    ):
        unroll //= 2
    return Gemv(block_n, block_k, unroll)


def _head(rows: int) -> Form:
    """So many outputs occupy the device however they are cut."""
    return Swapped(128, 64, 6) if 16 < rows <= 64 else Library()


def _gated(rows: int) -> Swapped:
    if rows > 64:
        return Swapped(128, 64, 4, warps=8)
    return Swapped(64, 128, 4)


def _splittable(rows: int, outputs: int, inputs: int) -> Swapped:
    """As many parts as occupy the device, each of four blocks and more."""
    block_k = 64 if rows > 64 else 128
    splits = 1
    while -(-outputs // 64) * splits < _PROGRAMS and inputs >= 8 * block_k * splits and splits < 8:
        splits *= 2
    return Swapped(64, block_k, _stages(64, block_k, rows), splits)


def _unsplit(rows: int, inputs: int) -> Form:
    if rows > 64:
        return Library()
    block_k = 128 if inputs >= 1024 else 64
    return Swapped(64, block_k, _stages(64, block_k, rows))


def _stages(block_n: int, block_k: int, rows: int) -> int:
    """Blocks under way in shared memory, of two bytes an element."""
    block = 2 * block_k * (block_n + max(16, power_of_2(rows)))
    return min(6, _SHARED_BYTES // block)


def power_of_2(n: int) -> int:
    """The least that is not smaller."""
    return 1 << (n - 1).bit_length()


def read(document: Mapping[str, Any]) -> Table:
    """A table from its JSON. ValueError names the entry that cannot be, and why."""
    return {
        operation: {
            shape: {
                int(limit): _form(operation, limit, fields) for limit, fields in by_rows.items()
            }
            for shape, by_rows in shapes.items()
        }
        for operation, shapes in document.items()
    }


def written(table: Table) -> dict[str, Any]:
    """JSON of a table, as `read` takes it."""
    names = {kind: name for name, kind in _FORMS.items()}
    return {
        operation: {
            shape: {
                str(limit): {"form": names[type(form)], **asdict(form)}
                for limit, form in by_rows.items()
            }
            for shape, by_rows in shapes.items()
        }
        for operation, shapes in table.items()
    }


def _form(operation: str, limit: str, fields: Mapping[str, Any]) -> Form:
    rest = {name: value for name, value in fields.items() if name != "form"}
    try:
        form = _FORMS[fields["form"]](**rest)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{operation}, up to {limit} rows: {dict(fields)} is no form: {error}"
        ) from error
    if isinstance(form, Gemv) and limit != "1":
        raise ValueError(f"{operation}, up to {limit} rows: gemv takes 1 row")
    if isinstance(form, Swapped) and form.splits > 1 and operation != SPLITTABLE:
        raise ValueError(f"{operation}, up to {limit} rows: only {SPLITTABLE} takes splits")
    return form
