"""Compiled form: rotates, stores and attends straight from the block tables, so it has a plan
of its own.

It serves rows with few new tokens (decoding and verifying) everywhere, and those with many
(prefill) on processors for which the library has matrix products.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import torch

from rtp_kernels.compiled import PACKAGE, share_threads, usable_for
from rtp_kernels.paged_attention.plan import Geometry, Row

MOST_TOKENS = 16
"""New tokens of a row up to which the compiled form is taken on every processor."""
Norms = tuple[torch.Tensor, torch.Tensor, float] | None


class CompiledAttention:
    """Bound to the geometries of a model's layers."""

    def __init__(self, geometries: Iterable[Geometry]) -> None:
        attention, plan = (import_module(f"{PACKAGE}.{name}") for name in _MODULES)
        self._plan_rows = plan.plan_rows
        self._attend = {
            one: attention.PagedAttention(softcap=one.softcap or 0.0) for one in geometries
        }
        self._prefills = bool(import_module(f"{PACKAGE}.library").prefill_kernels())

    def takes(self, num_new: int, *, tree: bool) -> bool:
        """Whether it serves a row with this many new tokens, drafts in a tree among them or not."""
        return num_new <= MOST_TOKENS or (self._prefills and not tree)

    def plan(
        self, rows: Sequence[Row], block_size: int, cos: torch.Tensor, sin: torch.Tensor
    ) -> Any:
        """Plan of one kind of layer; cos and sin as `rotary.rotary_tables` makes them."""
        return self._plan_rows(rows, block_size, cos, sin)

    def run(
        self,
        qkv: torch.Tensor,
        planes: tuple[torch.Tensor, torch.Tensor],
        plan: Any,
        geometry: Geometry,
        norms: Norms = None,
    ) -> torch.Tensor:
        """As `paged_attention`, for a plan of `plan`."""
        return self._attend[geometry](qkv, planes, plan, geometry, norms)


_MODULES = ("attention", "attention_plan")


def compiled_attention(dtype: str, geometries: Sequence[Geometry]) -> CompiledAttention | None:
    """The compiled form, or None where it is not installed or does not do these layers."""
    if not usable_for(dtype):
        return None
    fits = import_module(f"{PACKAGE}.{_MODULES[0]}").fits
    if not all(fits(one) for one in geometries):
        return None
    share_threads()
    return CompiledAttention(geometries)
