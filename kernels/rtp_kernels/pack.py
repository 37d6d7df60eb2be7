"""Weights that kept their codes become what the operations of this machine read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from importlib import import_module
from typing import Any

import torch

from rtp_kernels.compiled import PACKAGE, CompiledLinear, operations, share_threads, unavailable
from rtp_kernels.few_rows import OUTPUTS, FewRowsLinear, crossover, pack, product, usable
from rtp_kernels.linear_weight import LinearWeight

Packed = torch.Tensor | FewRowsLinear | CompiledLinear
GATED = "gate_up"
"""Names of weights whose first half gates the second end so."""
_SAMPLE = 8
_QUIET = 0.9
"""Share of the time of a measurement that its thread must have run to be believed later."""
Bounds = MutableMapping[str, int]
"""Measured row bounds by kind of weight, from this start or an earlier one on this machine."""


def why_not() -> str | None:
    """Why no operation here can read codes, or None."""
    return None if unavailable() is None else usable()


def pack_for_few_rows(
    parameters: Mapping[str, torch.Tensor | LinearWeight],
    dtype: str,
    bounds: Bounds | None = None,
) -> Mapping[str, Packed]:
    """Pack every weight that kept its codes; row bounds are measured, one a kind of weight.

    Bounds in `bounds` are not measured again, and those measured on a quiet machine join them.
    Compiled operations are preferred to torch's; float32 keeps the dense form.
    """
    bounds = {} if bounds is None else bounds
    coded = {name: one for name, one in parameters.items() if isinstance(one, LinearWeight)}
    made: dict[str, Packed] = {
        name: one for name, one in parameters.items() if isinstance(one, torch.Tensor)
    }
    if dtype != "bfloat16" or why_not() is not None:
        return made | {name: one.dense for name, one in coded.items()}
    form = _compiled if unavailable() is None else _torch
    for group in _alike(coded):
        made.update(form({name: coded[name] for name in group}, bounds))
    return made


def _alike(coded: Mapping[str, LinearWeight]) -> list[list[str]]:
    kinds: dict[tuple[torch.Size, int, bool], list[str]] = {}
    for name, one in coded.items():
        kind = (one.dense.shape, one.codes.bits, name.endswith(GATED))
        kinds.setdefault(kind, []).append(name)
    return list(kinds.values())


def _torch(
    weights: Mapping[str, LinearWeight], bounds: Bounds
) -> Mapping[str, torch.Tensor | FewRowsLinear]:
    """torch packs outputs by 16: weights with another number of them stay dense."""
    if any(one.dense.shape[0] % OUTPUTS for one in weights.values()):
        return {name: one.dense for name, one in weights.items()}
    parts = {name: pack(one.codes) for name, one in weights.items()}
    calls = [partial(product, parts=one) for one in parts.values()]
    most = _most_rows("torch", weights, calls, bounds)
    return {name: FewRowsLinear(one.dense, parts[name], most) for name, one in weights.items()}


def _compiled(weights: Mapping[str, LinearWeight], bounds: Bounds) -> dict[str, CompiledLinear]:
    share_threads()
    packed = {name: _panels(name, one) for name, one in weights.items()}
    calls = [partial(_multiply, one) for one in packed.values()]
    most = _most_rows("compiled", weights, calls, bounds)
    return {name: CompiledLinear(one.dense, packed[name], most) for name, one in weights.items()}


def _most_rows(
    form: str,
    weights: Mapping[str, LinearWeight],
    calls: list[Callable[[torch.Tensor], torch.Tensor]],
    bounds: Bounds,
) -> int:
    """The row bound of weights that are alike: known, or measured now."""
    name, one = next(iter(weights.items()))
    rows, columns = one.dense.shape
    gated = "-gated" if name.endswith(GATED) else ""
    kind = f"{form}-int{one.codes.bits}-{rows}x{columns}-of-{min(len(calls), _SAMPLE)}{gated}"
    if kind in bounds:
        return bounds[kind]
    began_s, ran_s = time.perf_counter(), time.thread_time()
    most = crossover(calls[:_SAMPLE], [weight.dense for weight in weights.values()][:_SAMPLE])
    ran_s, took_s = time.thread_time() - ran_s, time.perf_counter() - began_s
    if ran_s >= _QUIET * took_s:
        bounds[kind] = most
    return most


def _panels(name: str, weight: LinearWeight) -> Any:
    parts = 2 if name.endswith(GATED) else 1
    return import_module(f"{PACKAGE}.weights").pack(weight.codes, parts)


def _multiply(packed: Any, x: torch.Tensor) -> torch.Tensor:
    if packed.parts == 2:
        return operations().norm_gate_up(x, x.new_ones(x.shape[1]), 1e-6, packed)
    return operations().linear(x, packed)
