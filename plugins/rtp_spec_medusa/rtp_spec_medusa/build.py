"""A drafter from options: files found and checked now, weights read when the engine binds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from rtp_core.api import (
    BuildContext,
    DraftParts,
    SpeculatorNeeds,
    StoredTensors,
    open_stored_tensors,
)
from rtp_core.errors import ModelError
from rtp_kernels.linear_weight import GROUP, LinearWeight, quantize
from rtp_kernels.pack import pack_for_few_rows
from rtp_kernels.registry import resolve
from rtp_spec_medusa.drafter import MedusaDrafter
from rtp_spec_medusa.heads import Heads, HeadWeights
from rtp_spec_medusa.layout import Layout, read_layout, token_ids
from rtp_spec_medusa.shipped import FIELD, shipped_heads

if TYPE_CHECKING:
    from rtp_spec_medusa.plugin import MedusaOptions

_BITS = {"dense": None, "int8": 8, "int4": 4}


def build(context: BuildContext, options: MedusaOptions) -> MedusaDrafter:
    """Raises ConfigError or ModelError for heads that do not fit the model."""
    model = context.model
    if model is None:
        raise ModelError("heads draft for a model, and none is known")
    path = Path(options.head) if options.head else shipped_heads(model)
    files = open_stored_tensors(path, FIELD)
    layout = read_layout(files, model, options.any_model)
    found = token_ids(files, layout, model)
    ids = None if found is None else torch.from_numpy(found)
    reader = _Reader(files, layout, context, ids, _bits(options.weights, context))
    sizes = [math.prod(shape) for name, (_, shape) in files.tensors.items() if name != "token_map"]
    needs = SpeculatorNeeds(
        min(context.limits.max_draft_tokens, len(layout.blocks)),
        wants_final_hidden=True,
        memory_bytes=sum(sizes) * getattr(torch, context.dtype).itemsize,
    )
    return MedusaDrafter(needs, reader.load, ids, model.vocab_size)


def _bits(setting: str, context: BuildContext) -> int | None:
    if context.device != "cpu" or context.dtype != "bfloat16":
        return None
    return 8 if setting == "auto" else _BITS[setting]


class _Reader:
    """Reads heads once the model is there, whose rows they may share."""

    def __init__(
        self,
        files: StoredTensors,
        layout: Layout,
        context: BuildContext,
        ids: torch.Tensor | None,
        bits: int | None,
    ) -> None:
        self._files = files
        self._layout = layout
        self._context = context
        self._ids = ids
        self._bits = bits

    def load(self, parts: DraftParts) -> Heads:
        """All heads; those without a vocabulary of their own share one matrix."""
        shared = None
        if None in self._layout.vocabularies:
            shared = self._product(parts.model.head_rows(self._ids))
        heads = [
            HeadWeights(
                [
                    (self._read(one.weight), None if one.bias is None else self._read(one.bias))
                    for one in own
                ],
                shared if name is None else self._product(self._read(name)),
            )
            for own, name in zip(self._layout.blocks, self._layout.vocabularies, strict=True)
        ]
        return Heads(heads, self._context.dtype)

    def _read(self, name: str) -> torch.Tensor:
        dtype = getattr(torch, self._context.dtype)
        return self._files.read(name).to(device=self._context.device, dtype=dtype)

    def _product(self, matrix: torch.Tensor) -> Any:
        """What multiplies states by a matrix, in float32, by codes if they are asked for."""
        dtype = self._context.dtype
        if self._bits is None or matrix.shape[1] % GROUP:
            return lambda x: functional.linear(x, matrix).float()
        codes = quantize(matrix, self._bits)
        coded = {"head": LinearWeight(codes.dense().to(matrix.dtype), codes)}
        weight = pack_for_few_rows(coded, dtype)["head"]
        add = resolve("linear_residual", self._context.device, dtype)
        return lambda x: add(x, weight, x.new_zeros(len(x), len(matrix)), None).float()
