"""Gemma 2, and Gemma 3 for text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch

from rtp_core.api import ModelSpec
from rtp_core.models.configuration import Configuration, section
from rtp_core.models.family import (
    FULL,
    SLIDING,
    DecoderFamily,
    layer_types,
    window_of,
    with_windows,
)
from rtp_core.models.rope import rope_from

_DEFAULTS = {
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
_LOCAL_THETA, _GLOBAL_THETA = 10000.0, 1000000.0


class Gemma2Family(DecoderFamily):
    """Every other layer slides; scores and logits are limited."""

    architecture = "Gemma2ForCausalLM"
    defaults: ClassVar = {
        **_DEFAULTS,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }

    def describe(self, config: Configuration) -> ModelSpec:
        """See `DecoderFamily`."""
        spec = _gemma(self.plain(_common(config)), config)
        spec = replace(spec, attention_softcap=config.limit("attn_logit_softcapping"))
        return with_windows(spec, _interleaved(config, 2), window_of(config))


class Gemma3Family(DecoderFamily):
    """Five sliding layers to one full; either kind has its rotary base; heads are normalised."""

    architecture = "Gemma3ForCausalLM"
    defaults: ClassVar = _DEFAULTS

    def describe(self, config: Configuration) -> ModelSpec:
        """See `DecoderFamily`."""
        config.must_be_off("attn_logit_softcapping")
        flat = config.over({"rope_parameters": None, "rope_scaling": None})
        spec = replace(_gemma(self.plain(_common(flat)), config), qk_norm=True)
        kinds = _interleaved(config, config.count("sliding_window_pattern", 6))
        ropes = {
            kind: rope_from(_rotary(config, kind), spec.head_dim, spec.max_model_len)
            for kind in (FULL, SLIDING)
        }
        spec = replace(spec, rope=ropes[FULL], layer_ropes=tuple(ropes[kind] for kind in kinds))
        return with_windows(spec, kinds, window_of(config))


def _common(config: Configuration) -> Configuration:
    """The activation under the name that other families have for it."""
    return config.over({"hidden_act": config.get("hidden_activation")})


def _gemma(spec: ModelSpec, config: Configuration) -> ModelSpec:
    """What all Gemmas do: scaled embeddings, norms of 1 + weight on both sides of a block.

    The embedding's scale is rounded to the run dtype before it is used.
    """
    config.must_be_off("use_bidirectional_attention")
    bias = config.flag("attention_bias")
    root = torch.tensor(math.sqrt(spec.hidden_size)).to(getattr(torch, spec.dtype))
    return replace(
        spec,
        attention_bias=bias,
        attention_output_bias=bias,
        attention_scale=config.positive("query_pre_attn_scalar") ** -0.5,
        logits_softcap=config.limit("final_logit_softcapping"),
        embedding_scale=root.item(),
        norm_offset=1.0,
        post_norms=True,
    )


def _interleaved(config: Configuration, period: int) -> Sequence[str]:
    return layer_types(config, lambda layer: SLIDING if (layer + 1) % period else FULL)


def _rotary(config: Configuration, kind: str) -> Mapping[str, Any]:
    """Parameters of one kind of layer: nested (transformers 5), or flat with a local base."""
    nested = section(config.values, "rope_parameters")
    default = {"rope_theta": _GLOBAL_THETA if kind == FULL else _LOCAL_THETA}
    if nested:
        return {**default, **section(nested, kind)}
    base = config.get("rope_theta" if kind == FULL else "rope_local_base_freq")
    scaling = section(config.values, "rope_scaling") if kind == FULL else {}
    return {**default, **({} if base is None else {"rope_theta": base}), **scaling}
