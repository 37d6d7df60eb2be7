"""A drafter from options: files found and checked now, weights read when the engine binds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rtp_core.api import (
    BuildContext,
    DraftParts,
    KVGroup,
    KVPlane,
    ModelSpec,
    SpeculatorNeeds,
    open_stored_tensors,
)
from rtp_core.errors import ModelError
from rtp_spec_eagle.description import Description, describe
from rtp_spec_eagle.drafter import EagleDrafter
from rtp_spec_eagle.draws import Draws
from rtp_spec_eagle.head import Head
from rtp_spec_eagle.shapes import check_model, check_tensors, target_ids
from rtp_spec_eagle.shipped import FIELD, shipped_head
from rtp_spec_eagle.weights import packed, read_weights

if TYPE_CHECKING:
    from rtp_spec_eagle.plugin import EagleOptions

_BITS = {"dense": None, "int8": 8, "int4": 4}


def build(context: BuildContext, options: EagleOptions) -> EagleDrafter:
    """Raises ConfigError or ModelError for a head that does not fit the model."""
    model = context.model
    if model is None:
        raise ModelError("a head drafts for a model, and none is known")
    path = Path(options.head) if options.head else shipped_head(model)
    files = open_stored_tensors(path, FIELD)
    head = describe(files, model.num_layers, options.layer_ids)
    check_model(files, head, model, options.any_model)
    check_tensors(files, head)
    ids = target_ids(files, head)
    spec = layer_spec(head, model)
    bits = _bits(options.weights, context)

    def load(parts: DraftParts) -> tuple[Head, Draws]:
        weights = read_weights(files, head, model.dtype, context.device)
        if context.device == "cpu":
            weights = packed(weights, model.dtype, bits)
        bound = parts.attention(spec)
        made = Head(head, weights, parts.model, bound, context.device, model.dtype)
        table = None if ids is None else torch.from_numpy(ids).to(context.device)
        return made, Draws(table, model.vocab_size)

    needs = SpeculatorNeeds(
        context.limits.max_draft_tokens,
        capture_layers=head.capture_layers,
        wants_final_hidden=head.version == 1,
        kv_groups=spec.kv_groups,
        memory_bytes=sum(
            math.prod(shape) * getattr(torch, model.dtype).itemsize
            for _, shape in files.tensors.values()
        ),
    )
    return EagleDrafter(needs, spec, load, context.limits.block_size, context.device)


def layer_spec(head: Description, model: ModelSpec) -> ModelSpec:
    """The head's layer, as attention sees it: a model of one layer without a key for token 0."""
    plane = KVPlane(head.num_kv_heads, head.head_dim, model.dtype)
    state = head.hidden_size if head.version == 3 else head.target_hidden_size
    group = KVGroup("eagle", (0,), (plane, plane), first_key=1, block_state=state)
    return replace(
        model,
        architecture=f"EAGLE-{head.version}",
        num_layers=1,
        hidden_size=head.hidden_size,
        num_heads=head.num_heads,
        num_kv_heads=head.num_kv_heads,
        head_dim=head.head_dim,
        intermediate_size=head.intermediate_size,
        norm_eps=head.norm_eps,
        rope=head.rope,
        layer_ropes=(),
        kv_groups=(group,),
        attention_scale=None,
        attention_softcap=None,
        experts=None,
    )


def _bits(setting: str, context: BuildContext) -> int | None:
    if context.device != "cpu" or context.dtype != "bfloat16":
        return None
    return 8 if setting == "auto" else _BITS[setting]
