"""What of a model's steps has forms to choose from, and where to look for better ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rtp_core.api import ModelSpec
from rtp_core.engine.prepare import Prepared
from rtp_core.engine.tune_search import Axis, Setting
from rtp_core.execution.torch_attention import layer_geometry
from rtp_kernels.gpu import candidates, forms, tuned
from rtp_kernels.paged_attention.plan import Geometry

OPERATIONS = {
    "gate_up": "norm_gate_up",
    "down": "linear_residual",
    "qkv": "norm_linear",
    "o": "linear_residual",
    "head": "head",
}
"""Operation by the last part of a parameter's name, those that take longest first."""


@dataclass(frozen=True, slots=True)
class Slots:
    """A model's slots; equal shapes share one. `name` is the same for models of equal shapes."""

    name: str
    linear: tuple[str, ...]
    attention: Mapping[str, Geometry]

    @staticmethod
    def of(prepared: Prepared) -> Slots:
        """Of linear operations and of attention."""
        spec, size = prepared.spec, prepared.context.limits.block_size
        linear = _linear(prepared)
        geometries = (layer_geometry(spec, group, size) for group in spec.kv_groups)
        attention = {tuned.attention_slot(one): one for one in geometries}
        words = f"{linear} {tuple(attention)} {spec.num_layers} {spec.dtype}"
        name = hashlib.blake2b(words.encode(), digest_size=6).hexdigest()
        return Slots(name, linear, attention)

    def serving(self, rows: int, context: int) -> Setting:
        """The forms that serve a step now."""
        linear = {slot: tuned.linear_form(slot, rows) for slot in self.linear}
        attention = {
            slot: tuned.attention_form(geometry, rows, 1, context)
            for slot, geometry in self.attention.items()
        }
        return {**linear, **attention}

    def axes(self, rows: int, context: int) -> Sequence[Axis]:
        """Every linear operation, then splits, tiles and the first load of attention."""
        limit = forms.bucket(rows) or rows
        found = [_linear_axis(slot, limit) for slot in self.linear]
        for slot, geometry in self.attention.items():
            found += _attention_axes(slot, geometry, context)
        return found


def _linear(prepared: Prepared) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for part, operation in OPERATIONS.items():
        for one in prepared.plan.parameters:
            if _part(one.name, prepared.spec) == part and len(one.shape) == 2:
                found[tuned.linear_slot(operation, *one.shape)] = None
    return tuple(found)


def _part(name: str, spec: ModelSpec) -> str:
    return "head" if name == "embed" and spec.tied_head else name.rpartition(".")[2]


def _linear_axis(slot: str, limit: int) -> Axis:
    known = candidates.linear(slot, limit, forms.architecture())
    return Axis(slot, lambda form: [one for one in known if one != form])


def _attention_axes(slot: str, geometry: Geometry, context: int) -> list[Axis]:
    seen = min(context, geometry.window or context)
    dim = geometry.head_dim
    return [
        Axis(slot, lambda form: candidates.splits(form, seen)),
        Axis(slot, lambda form: [one for one in candidates.tiles(form, dim) if one != form]),
        Axis(slot, candidates.early),
    ]
