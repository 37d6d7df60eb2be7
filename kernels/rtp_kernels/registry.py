"""Which implementation of an operation serves a device and dtype; resolved at model build."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

OPERATIONS = (
    "embed",
    "norm_linear",
    "linear_residual",
    "norm_gate_up",
    "norm_gate_up_gelu",
    "linear_norm_residual",
    "moe_gate_up_down",
    "head",
    "soft_cap",
    "settle",
    "block_copy",
    "block_gather",
    "block_scatter",
    "paged_attention",
    "merge_attention",
    "next_tokens",
    "step_attention",
)


@dataclass(frozen=True, slots=True)
class Implementation:
    """`module` holds ``bind(dtype)``, whose answer is called; `devices` or `dtypes` empty: any.

    A few operations that share state are one object with several calls.
    """

    operation: str
    backend: str
    module: str
    devices: frozenset[str]
    priority: int
    dtypes: frozenset[str] = frozenset()


_IMPLEMENTATIONS: list[Implementation] = (
    [
        Implementation(name, "reference", f"rtp_kernels.{name}.reference", frozenset(), 0)
        for name in OPERATIONS
    ]
    + [
        Implementation(name, "cpu", f"rtp_kernels.{name}.cpu", frozenset({"cpu"}), 10)
        for name in (
            "norm_linear",
            "linear_residual",
            "norm_gate_up",
            "norm_gate_up_gelu",
            "linear_norm_residual",
            "moe_gate_up_down",
            "head",
            "paged_attention",
        )
    ]
    + [
        Implementation(name, "compiled", f"rtp_kernels.{name}.compiled", frozenset({"cpu"}), 20)
        for name in (
            "norm_linear",
            "linear_residual",
            "norm_gate_up",
            "norm_gate_up_gelu",
            "linear_norm_residual",
            "head",
        )
    ]
)

_TRITON: tuple[str, ...] = (
    "block_copy",
    "block_gather",
    "block_scatter",
    "merge_attention",
    "next_tokens",
    "step_attention",
    "embed",
    "norm_linear",
    "linear_residual",
    "norm_gate_up",
    "norm_gate_up_gelu",
    "linear_norm_residual",
    "moe_gate_up_down",
    "head",
    "soft_cap",
    "settle",
)
"""Operations with a Triton form, for half precision; float32 takes the reference."""

_IMPLEMENTATIONS += [
    Implementation(
        name,
        "triton",
        f"rtp_kernels.{name}.triton",
        frozenset({"cuda"}),
        10,
        frozenset({"bfloat16", "float16"}),
    )
    for name in _TRITON
]


def resolve(operation: str, device: str, dtype: str) -> Any:
    """The bound operation of highest priority. Raises LookupError naming the nearest name."""
    fitting = [
        one
        for one in _IMPLEMENTATIONS
        if one.operation == operation
        and (not one.devices or device in one.devices)
        and (not one.dtypes or dtype in one.dtypes)
    ]
    if not fitting:
        near = difflib.get_close_matches(operation, OPERATIONS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise LookupError(f"no operation {operation!r} for {device}{hint}")
    best = max(fitting, key=lambda one: one.priority)
    return import_module(best.module).bind(dtype)


def resolver(device: str, dtype: str) -> Callable[[str], Callable[..., Any]]:
    """`resolve` with device and dtype filled in, as model files take it."""

    def bound(operation: str) -> Callable[..., Any]:
        return resolve(operation, device, dtype)

    return bound
