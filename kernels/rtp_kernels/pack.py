"""Weights that kept their codes become what the operations of this machine read."""

from __future__ import annotations

from collections.abc import Mapping
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


def why_not() -> str | None:
    """Why no operation here can read codes, or None."""
    return None if unavailable() is None else usable()


def pack_for_few_rows(
    parameters: Mapping[str, torch.Tensor | LinearWeight], dtype: str
) -> Mapping[str, Packed]:
    """Pack every weight that kept its codes; row bounds are measured, one a kind of weight.

    Compiled operations are preferred to torch's; float32 keeps the dense form.
    """
    coded = {name: one for name, one in parameters.items() if isinstance(one, LinearWeight)}
    made: dict[str, Packed] = {
        name: one for name, one in parameters.items() if isinstance(one, torch.Tensor)
    }
    if dtype != "bfloat16" or why_not() is not None:
        return made | {name: one.dense for name, one in coded.items()}
    form = _compiled if unavailable() is None else _torch
    for group in _alike(coded):
        made.update(form({name: coded[name] for name in group}))
    return made


def _alike(coded: Mapping[str, LinearWeight]) -> list[list[str]]:
    kinds: dict[tuple[torch.Size, int, bool], list[str]] = {}
    for name, one in coded.items():
        kind = (one.dense.shape, one.codes.bits, name.endswith(GATED))
        kinds.setdefault(kind, []).append(name)
    return list(kinds.values())


def _torch(weights: Mapping[str, LinearWeight]) -> Mapping[str, torch.Tensor | FewRowsLinear]:
    """torch packs outputs by 16: weights with another number of them stay dense."""
    if any(one.dense.shape[0] % OUTPUTS for one in weights.values()):
        return {name: one.dense for name, one in weights.items()}
    parts = {name: pack(one.codes) for name, one in weights.items()}
    dense = [one.dense for one in weights.values()]
    calls = [partial(product, parts=one) for one in parts.values()]
    most = crossover(calls[:_SAMPLE], dense[:_SAMPLE])
    return {name: FewRowsLinear(one.dense, parts[name], most) for name, one in weights.items()}


def _compiled(weights: Mapping[str, LinearWeight]) -> dict[str, CompiledLinear]:
    share_threads()
    packed = {name: _panels(name, one) for name, one in weights.items()}
    dense = [one.dense for one in weights.values()]
    calls = [partial(_multiply, one) for one in packed.values()]
    most = crossover(calls[:_SAMPLE], dense[:_SAMPLE])
    return {name: CompiledLinear(one.dense, packed[name], most) for name, one in weights.items()}


def _panels(name: str, weight: LinearWeight) -> Any:
    parts = 2 if name.endswith(GATED) else 1
    return import_module(f"{PACKAGE}.weights").pack(weight.codes, parts)


def _multiply(packed: Any, x: torch.Tensor) -> torch.Tensor:
    if packed.parts == 2:
        return operations().norm_gate_up(x, x.new_ones(x.shape[1]), 1e-6, packed)
    return operations().linear(x, packed)
