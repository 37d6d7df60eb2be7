"""Llama 2, 3 and 3.x, SmolLM 1 and 2, and SmolLM3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from rtp_core.api import ModelSpec
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


class LlamaFamily(DecoderFamily):
    """Biases, if any, are on all projections of attention or of the feed-forward part."""

    architecture = "LlamaForCausalLM"

    def describe(self, config: Configuration) -> ModelSpec:
        """See `DecoderFamily`."""
        if config.values.get("use_sliding_window", True):
            config.must_be_off("sliding_window")
        bias = config.flag("attention_bias")
        return replace(
            self.plain(config),
            attention_bias=bias,
            attention_output_bias=bias,
            mlp_bias=config.flag("mlp_bias"),
        )


class SmolLM3Family(DecoderFamily):
    """As Llama, but every fourth layer does not rotate; windows, if any, are on those."""

    architecture = "SmolLM3ForCausalLM"
    defaults: ClassVar = {"tie_word_embeddings": True, "rope_theta": 2000000.0}

    def describe(self, config: Configuration) -> ModelSpec:
        """`layer_ropes` from `no_rope_layers`, whose 1 stands for a layer that rotates."""
        bias, plain = config.flag("attention_bias"), self.plain(config)
        rotates, window = _rotates(config), switched_window(config)
        kinds = layer_types(
            config, lambda layer: FULL if rotates[layer] or window is None else SLIDING
        )
        return with_windows(
            replace(
                plain,
                attention_bias=bias,
                attention_output_bias=bias,
                mlp_bias=config.flag("mlp_bias"),
                layer_ropes=tuple(plain.rope if turns else None for turns in rotates),
            ),
            kinds,
            window,
        )


def _rotates(config: Configuration) -> Sequence[int]:
    layers = num_layers(config)
    given = config.per_layer("no_rope_layers", layers)
    if given is None:
        interval = config.count("no_rope_layer_interval", 4)
        return [int((layer + 1) % interval != 0) for layer in range(layers)]
    for turns in given:
        if turns not in (0, 1):
            refuse("no_rope_layers", turns, "0 or 1 a layer")
    return given
