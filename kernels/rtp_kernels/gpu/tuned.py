"""Forms found by tuning whole steps on the machine at hand; they come before the shipped ones.

A document, as JSON has it: ``linear``, as `configurations/sm_90.json`, with the limits of
`forms.BUCKETS`; ``attention``, shape of the heads -> step -> fields of a `DecodeChoice`.
A *slot* names what one step has a form for: "OPERATION OUTPUTSxINPUTS" or "attention SHAPE".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import ItemsView, Mapping
from copy import deepcopy
from dataclasses import asdict
from typing import Any

from rtp_kernels.gpu import forms
from rtp_kernels.paged_attention import choice
from rtp_kernels.paged_attention.plan import Geometry

Document = Mapping[str, Any]
Setting = Mapping[str, Mapping[str, Any]]
"""A step's form by slot, as JSON."""
ATTENTION = "attention"
_FIELDS = {"tile": int, "warps": int, "stages": int, "splits": int, "early": bool}
_SIZES = ("block_n", "block_k", "unroll", "stages", "splits", "warps")
"""Fields of linear forms that are one and more."""
_NOTHING: Document = {"linear": {}, ATTENTION: {}}
_used = {"digest": ""}


def check(document: Document) -> None:
    """Raises ValueError naming an entry that no kernel could serve."""
    for operation, shapes in _object("linear", document["linear"]):
        for shape, limits in _object(operation, shapes):
            for limit, fields in _object(f"{operation}, {shape}", limits):
                _check_linear(f"{operation}, {shape}, up to {limit} rows", limit, fields)
    forms.read(document["linear"])
    for shape, steps in _object(ATTENTION, document[ATTENTION]):
        for step, fields in _object(shape, steps):
            _check_attention(f"attention, {shape}, {step}", fields)


def use(document: Document) -> None:
    """Serve steps by this from now on. Raises ValueError, as `check`."""
    check(document)
    forms.prefer(forms.read(document["linear"]))
    choice.prefer(document[ATTENTION])
    parts = {name: document[name] for name in _NOTHING}
    _used["digest"] = _digest(parts) if any(parts.values()) else ""


def use_none() -> None:
    """Serve steps by what is shipped."""
    use(_NOTHING)


def digest() -> str:
    """Changes with what `use` was given; empty without it."""
    return _used["digest"]


def num_forms(document: Document) -> int:
    """How many forms a document holds."""
    linear = sum(len(one) for shapes in document["linear"].values() for one in shapes.values())
    return linear + sum(map(len, document[ATTENTION].values()))


def linear_slot(operation: str, outputs: int, inputs: int) -> str:
    """The slot of an operation over a weight of this shape."""
    operation = forms.SHARED.get(operation, operation)
    return f"{operation} {forms.shape_key(outputs, inputs)}"


def attention_slot(geometry: Geometry) -> str:
    """The slot of decoding with this geometry."""
    return f"{ATTENTION} {choice.shape_key(geometry)}"


def linear_form(slot: str, rows: int) -> dict[str, Any]:
    """What serves a linear slot now."""
    operation, _, shape = slot.partition(" ")
    outputs, inputs = map(int, shape.split("x"))
    form = forms.default()(operation, rows, outputs, inputs)
    return forms.written({operation: {shape: {rows: form}}})[operation][shape][str(rows)]


def attention_form(geometry: Geometry, rows: int, new_tokens: int, context: int) -> dict[str, Any]:
    """What serves decoding now."""
    picked = asdict(choice.choose(geometry, choice.power_of_2(rows), new_tokens, context))
    return {name: picked[name] for name in _FIELDS}


def with_setting(document: Document, setting: Setting, rows: int, context: int) -> Document:
    """The document with a setting of plain decoding: linear forms for the rows' bucket, attention
    for the next power of two. ValueError for rows beyond all buckets."""
    limit = forms.bucket(rows)
    if limit is None:
        raise ValueError(f"{rows} rows: forms are for 1 to {forms.BUCKETS[-1]}")
    found = {name: deepcopy(dict(document[name])) for name in _NOTHING}
    step = choice.step_key(choice.power_of_2(rows), 1, context)
    for slot, form in setting.items():
        name, _, shape = slot.partition(" ")
        if name == ATTENTION:
            found[ATTENTION].setdefault(shape, {})[step] = dict(form)
        else:
            found["linear"].setdefault(name, {}).setdefault(shape, {})[str(limit)] = dict(form)
    return {**document, **found}


def _object(where: str, value: Any) -> ItemsView[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {value!r:.100} is no object")  # noqa: TRY004 - of a file
    return value.items()


def _check_linear(where: str, limit: str, fields: Any) -> None:
    """What `forms.read` leaves to the kernels: sizes, and limits that are looked for."""
    if limit not in map(str, forms.BUCKETS):
        raise ValueError(f"{where}: limits are {forms.BUCKETS}")
    for name, value in _object(where, fields):
        if name == "form":
            continue
        if not isinstance(value, int) or value < (name in _SIZES):
            raise ValueError(f"{where}: {name} is {value!r:.50}")
        if name.startswith("block_") and value & (value - 1):
            raise ValueError(f"{where}: {name} {value} is no power of two")


def _check_attention(where: str, fields: Any) -> None:
    kinds = {name: type(value) for name, value in _object(where, fields)}
    if kinds != _FIELDS:
        raise ValueError(f"{where}: {fields!r:.200} is not {', '.join(_FIELDS)}")
    for name in ("tile", "warps", "splits"):
        if fields[name] < 1 or fields[name] & (fields[name] - 1):
            raise ValueError(f"{where}: {name} {fields[name]} is no power of two")


def _digest(parts: Mapping[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
