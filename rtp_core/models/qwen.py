"""Qwen2 and Qwen2.5, Qwen3, and Qwen3 with experts."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from rtp_core.api import ExpertsSpec, ModelSpec
from rtp_core.models.configuration import Configuration, refuse
from rtp_core.models.family import (
    FULL,
    SLIDING,
    DecoderFamily,
    layer_types,
    num_layers,
    switched_window,
    with_windows,
)


class Qwen2Family(DecoderFamily):
    """Biases on queries, keys and values; windows, if on, from `max_window_layers` up."""

    architecture = "Qwen2ForCausalLM"
    defaults: ClassVar = {"sliding_window": 4096}

    def describe(self, config: Configuration) -> ModelSpec:
        """See `DecoderFamily`."""
        return _with_upper_windows(replace(self.plain(config), attention_bias=True), config)


class Qwen3Family(DecoderFamily):
    """Query and key heads are normalised; the head size is explicit."""

    architecture = "Qwen3ForCausalLM"
    defaults: ClassVar = {"head_dim": 128, "sliding_window": 4096}

    def describe(self, config: Configuration) -> ModelSpec:
        """See `DecoderFamily`."""
        return _with_upper_windows(_with_normed_heads(self.plain(config), config), config)


class Qwen3MoeFamily(DecoderFamily):
    """Qwen3 whose layers, all or some, choose experts; a window, if on, is on all layers."""

    architecture = "Qwen3MoeForCausalLM"
    defaults: ClassVar = {"sliding_window": 4096}

    def describe(self, config: Configuration) -> ModelSpec:
        """See `DecoderFamily`."""
        window = switched_window(config)
        kinds = [FULL if window is None else SLIDING] * num_layers(config)
        spec = replace(_with_normed_heads(self.plain(config), config), experts=_experts(config))
        return with_windows(spec, kinds, window)


def _with_normed_heads(spec: ModelSpec, config: Configuration) -> ModelSpec:
    bias = config.flag("attention_bias")
    return replace(spec, qk_norm=True, attention_bias=bias, attention_output_bias=bias)


def _with_upper_windows(spec: ModelSpec, config: Configuration) -> ModelSpec:
    window, first = switched_window(config), config.index("max_window_layers", 28)
    kinds = layer_types(config, lambda layer: FULL if window is None or layer < first else SLIDING)
    return with_windows(spec, kinds, window)


def _experts(config: Configuration) -> ExpertsSpec | None:
    """None when `mlp_only_layers` and `decoder_sparse_step` leave every layer dense."""
    layers = _sparse_layers(config)
    if not layers:
        return None
    num_experts = config.count("num_experts", config.get("num_local_experts") or 128)
    top_k = config.count("num_experts_per_tok", 8)
    if top_k > num_experts:
        refuse("num_experts_per_tok", top_k, f"at most num_experts {num_experts}")
    return ExpertsSpec(
        layers,
        num_experts,
        top_k,
        config.count("moe_intermediate_size", 768),
        config.flag("norm_topk_prob"),
    )


def _sparse_layers(config: Configuration) -> tuple[int, ...]:
    dense = config.items("mlp_only_layers") or ()
    if config.get("num_experts") == 0:
        return ()
    step = config.count("decoder_sparse_step", 1)
    return tuple(
        layer
        for layer in range(num_layers(config))
        if layer not in dense and (layer + 1) % step == 0
    )
