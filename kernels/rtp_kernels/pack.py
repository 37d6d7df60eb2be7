"""Weights of linear layers become what the operations of this machine read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, TypeGuard

import torch

from rtp_kernels.compiled import PACKAGE, CompiledLinear, operations, share_threads, unavailable
from rtp_kernels.few_rows import (
    OUTPUTS,
    ROW_COUNTS,
    FewRowsLinear,
    crossover,
    pack,
    product,
    usable,
)
from rtp_kernels.linear_weight import GROUP, LinearWeight

Packed = torch.Tensor | FewRowsLinear | CompiledLinear
GATED = "gate_up"
"""Names of weights whose first half gates the second end so."""
_SAMPLE = 8
_QUIET = 0.9
"""Share of the time of a measurement that its thread must have run to be believed later."""
Bounds = MutableMapping[str, int]
"""Measured row bounds by kind of weight, from this start or an earlier one on this machine."""
_BORROWED_SAMPLE, _BORROWED_COUNTS = 2, (1, 2, 4)
"""Weights without codes gain less, and on fewer rows: measuring them takes a start's time."""


def why_not() -> str | None:
    """Why no operation here can read codes, or None."""
    return None if unavailable() is None else usable()


def pack_for_few_rows(
    parameters: Mapping[str, torch.Tensor | LinearWeight],
    dtype: str,
    linear: Iterable[str] = (),
    bounds: Bounds | None = None,
) -> Mapping[str, Packed]:
    """Pack every weight that kept its codes; row bounds are measured, one a kind of weight.

    `linear` names the weights that only linear operations (and the embedding) read: those
    without codes are read as they are by the compiled operations. These are preferred to
    torch's; float32 keeps the dense form. Bounds in `bounds` are not measured again, and those
    measured on a quiet machine join them.
    """
    bounds = {} if bounds is None else bounds
    coded = {name: one for name, one in parameters.items() if isinstance(one, LinearWeight)}
    made: dict[str, Packed] = {
        name: one for name, one in parameters.items() if isinstance(one, torch.Tensor)
    }
    if dtype != "bfloat16" or why_not() is not None:
        return made | {name: one.dense for name, one in coded.items()}
    compiled = unavailable() is None
    form = _compiled if compiled else _torch
    for group in _alike({name: (one.dense, one.codes.bits) for name, one in coded.items()}):
        made.update(form({name: coded[name] for name in group}, bounds))
    if compiled:
        plain = {name: parameters[name] for name in linear}
        dense = {name: one for name, one in plain.items() if _can_borrow(one)}
        for group in _alike({name: (one, 16) for name, one in dense.items()}):
            made.update(_borrowed({name: dense[name] for name in group}, bounds))
    return made


def _can_borrow(weight: torch.Tensor | LinearWeight) -> TypeGuard[torch.Tensor]:
    return (
        isinstance(weight, torch.Tensor)
        and weight.dtype == torch.bfloat16
        and weight.is_contiguous()
        and weight.shape[1] % GROUP == 0
    )


def _alike(weights: Mapping[str, tuple[torch.Tensor, int]]) -> list[list[str]]:
    """Names of dense forms and bits, grouped by what decides how fast they are."""
    kinds: dict[tuple[torch.Size, int, bool], list[str]] = {}
    for name, (dense, bits) in weights.items():
        kinds.setdefault((dense.shape, bits, name.endswith(GATED)), []).append(name)
    return list(kinds.values())


def _torch(
    weights: Mapping[str, LinearWeight], bounds: Bounds
) -> Mapping[str, torch.Tensor | FewRowsLinear]:
    """torch packs outputs by 16: weights with another number of them stay dense."""
    if any(one.dense.shape[0] % OUTPUTS for one in weights.values()):
        return {name: one.dense for name, one in weights.items()}
    parts = {name: pack(one.codes) for name, one in weights.items()}
    calls = [partial(product, parts=one) for one in parts.values()]
    kind = _kind("torch", weights)
    most = _most_rows(kind, bounds, calls[:_SAMPLE], [one.dense for one in weights.values()])
    return {name: FewRowsLinear(one.dense, parts[name], most) for name, one in weights.items()}


def _compiled(weights: Mapping[str, LinearWeight], bounds: Bounds) -> dict[str, CompiledLinear]:
    library = import_module(f"{PACKAGE}.weights")
    packed = {name: library.pack(one.codes, _parts(name)) for name, one in weights.items()}
    dense = {name: one.dense for name, one in weights.items()}
    share_threads()
    calls = [partial(_multiply, one) for one in packed.values()][:_SAMPLE]
    most = _most_rows(_kind("compiled", weights), bounds, calls, list(dense.values()))
    return {name: CompiledLinear(one, packed[name], most) for name, one in dense.items()}


def _borrowed(weights: Mapping[str, torch.Tensor], bounds: Bounds) -> dict[str, CompiledLinear]:
    library = import_module(f"{PACKAGE}.weights")
    packed = {name: library.borrow(one, _parts(name)) for name, one in weights.items()}
    share_threads()
    calls = [partial(_multiply, one) for one in packed.values()][:_BORROWED_SAMPLE]
    kind = _kind("borrowed", weights)
    most = _most_rows(kind, bounds, calls, list(weights.values()), _BORROWED_COUNTS)
    return {name: CompiledLinear(one, packed[name], most) for name, one in weights.items()}


def _kind(form: str, weights: Mapping[str, LinearWeight | torch.Tensor]) -> str:
    """What decides the row bound of weights that are alike, in words."""
    name, one = next(iter(weights.items()))
    dense, bits = (one, 16) if isinstance(one, torch.Tensor) else (one.dense, one.codes.bits)
    rows, columns = dense.shape
    gated = "-gated" if name.endswith(GATED) else ""
    return f"{form}-int{bits}-{rows}x{columns}-of-{min(len(weights), _SAMPLE)}{gated}"


def _most_rows(
    kind: str,
    bounds: Bounds,
    calls: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    dense: Sequence[torch.Tensor],
    counts: Sequence[int] = ROW_COUNTS,
) -> int:
    """The row bound of a kind: known, or measured now."""
    if kind in bounds:
        return bounds[kind]
    began_s, ran_s = time.perf_counter(), time.thread_time()
    most = crossover(calls, dense[: len(calls)], counts)
    ran_s, took_s = time.thread_time() - ran_s, time.perf_counter() - began_s
    if ran_s >= _QUIET * took_s:
        bounds[kind] = most
    return most


def _parts(name: str) -> int:
    return 2 if name.endswith(GATED) else 1


def _multiply(packed: Any, x: torch.Tensor) -> torch.Tensor:
    if packed.parts == 2:
        return operations().norm_gate_up(x, x.new_ones(x.shape[1]), 1e-6, packed)
    return operations().linear(x, packed)
