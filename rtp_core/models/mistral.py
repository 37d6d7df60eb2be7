"""Mistral 7B, Nemo, Small and Large: Llama with one window for all layers, or none."""

from __future__ import annotations

from typing import ClassVar

from rtp_core.api import ModelSpec
from rtp_core.models.configuration import Configuration, refuse
from rtp_core.models.family import FULL, SLIDING, DecoderFamily, num_layers, window_of, with_windows


class MistralFamily(DecoderFamily):
    """The head size need not be hidden_size / heads (Nemo: 128, not 160)."""

    architecture = "MistralForCausalLM"
    defaults: ClassVar = {"num_key_value_heads": 8, "sliding_window": 4096}

    def describe(self, config: Configuration) -> ModelSpec:
        """A window of null, as later versions have it, means full attention."""
        window = window_of(config)
        kind = FULL if window is None else SLIDING
        if set(config.get("layer_types") or [kind]) != {kind}:
            refuse("layer_types", config.get("layer_types"), f"{kind} for all layers")
        return with_windows(self.plain(config), [kind] * num_layers(config), window)
