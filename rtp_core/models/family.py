"""What native families share: reading a plain decoder, layers with windows, building."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from rtp_core.api import (
    CausalModel,
    KVGroup,
    KVPlane,
    ModelSpec,
    ParallelContext,
    WeightTable,
)
from rtp_core.models.configuration import Configuration, refuse
from rtp_core.models.decoder import Decoder
from rtp_core.models.rope import read_rope
from rtp_core.models.weights import decoder_table

FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers, as `layer_types` names them."""
_MOST_LAYERS = 4096
_ACTIVATIONS: Mapping[str, Literal["silu", "gelu_tanh"]] = {
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
}


class DecoderFamily(ABC):
    """An `api.ModelFamily` that the shared decoder runs.

    `defaults` are those of Hugging Face's configuration class, for keys that a checkpoint may
    leave out.
    """

    architecture: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    builds_early = True

    @abstractmethod
    def describe(self, config: Configuration) -> ModelSpec:
        """Raises ModelError naming the key that is missing or cannot be honoured."""

    def spec(self, config: Mapping[str, Any], dtype: str, fingerprint: str) -> ModelSpec:
        """See `api.ModelFamily`."""
        return self.describe(Configuration({**self.defaults, **config}, dtype, fingerprint))

    def weights(self, spec: ModelSpec) -> WeightTable:
        """Fused qkv and gate-up; see `models.weights`."""
        return decoder_table(spec)

    def build(
        self,
        spec: ModelSpec,
        parameters: Mapping[str, torch.Tensor],
        parallel: ParallelContext,
        kernels: Callable[[str], Callable[..., Any]],
    ) -> CausalModel:
        """Bind parameters and operations."""
        return Decoder(spec, parameters, parallel, kernels)

    def plain(self, config: Configuration) -> ModelSpec:
        """What most configurations have in common: Llama without biases and windows."""
        heads = config.count("num_attention_heads")
        kv_heads = config.count("num_key_value_heads", heads)
        if heads % kv_heads:
            refuse("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads {heads}")
        layers, head_dim = num_layers(config), _head_dim(config, heads)
        max_position = config.count("max_position_embeddings", 2048)
        plane = KVPlane(kv_heads, head_dim, config.dtype)
        return ModelSpec(
            architecture=self.architecture,
            num_layers=layers,
            hidden_size=config.count("hidden_size"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=config.count("intermediate_size"),
            vocab_size=config.count("vocab_size"),
            max_model_len=max_position,
            norm_eps=config.positive("rms_norm_eps", 1e-6),
            rope=read_rope(config.values, head_dim, max_position),
            tied_head=config.flag("tie_word_embeddings"),
            dtype=config.dtype,
            fingerprint=config.fingerprint,
            kv_groups=(KVGroup("main", tuple(range(layers)), (plane, plane)),),
            activation=_activation(config),
        )


def num_layers(config: Configuration) -> int:
    """How many decoder layers."""
    return config.count("num_hidden_layers", most=_MOST_LAYERS)


def layer_types(config: Configuration, unnamed: Callable[[int], str]) -> Sequence[str]:
    """`layer_types` of the configuration; `unnamed` tells a layer's kind if they are missing."""
    layers = num_layers(config)
    kinds = config.per_layer("layer_types", layers)
    if kinds is None:
        return [unnamed(layer) for layer in range(layers)]
    for kind in kinds:
        if kind not in (FULL, SLIDING):
            refuse("layer_types", kind, f"{FULL} or {SLIDING}")
    return kinds


def window_of(config: Configuration) -> int | None:
    """`sliding_window`: how many tokens a query sees, its own included; None without limit."""
    return None if config.get("sliding_window") is None else config.count("sliding_window")


def switched_window(config: Configuration) -> int | None:
    """`sliding_window` where it counts only if `use_sliding_window` is on."""
    return window_of(config) if config.flag("use_sliding_window") else None


def with_windows(spec: ModelSpec, kinds: Sequence[str], window: int | None) -> ModelSpec:
    """Sliding layers in a KV group of their own, which needs `window` tokens a sequence."""
    full, sliding = (
        tuple(layer for layer, one in enumerate(kinds) if one == kind) for kind in (FULL, SLIDING)
    )
    if sliding and window is None:
        refuse("layer_types", SLIDING, f"only {FULL} where sliding_window is off")
    planes = spec.kv_groups[0].planes
    groups = (KVGroup("main", full, planes), KVGroup("window", sliding, planes, window))
    return replace(spec, kv_groups=tuple(group for group in groups if group.layers))


def _head_dim(config: Configuration, heads: int) -> int:
    hidden = config.count("hidden_size")
    if config.get("head_dim") is None and hidden % heads:
        refuse("hidden_size", hidden, f"a multiple of num_attention_heads {heads}, or head_dim")
    return config.count("head_dim", hidden // heads)


def _activation(config: Configuration) -> Literal["silu", "gelu_tanh"]:
    name = config.get("hidden_act") or "silu"
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        refuse("hidden_act", name, f"one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]
