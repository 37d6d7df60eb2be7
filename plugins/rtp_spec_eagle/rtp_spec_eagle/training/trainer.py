"""``draft_trainer:eagle``: EAGLE-3 heads by training-time test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rtp_core.api import DraftHead, ModelSpec, TrainingTarget
from rtp_spec_eagle.training.head import Eagle3Head, loaded_module, new_module, usual_layers

_FEWEST_LAYERS = 7
"""Of a target whose usual layers are three different ones, in order."""


class EagleTrainer:
    """See `rtp_core.api.DraftMethod`."""

    def capture_layers(self, spec: ModelSpec) -> tuple[int, ...]:
        """Low, middle and high."""
        if spec.num_layers >= _FEWEST_LAYERS:
            return usual_layers(spec.num_layers)
        return 0, spec.num_layers // 2, spec.num_layers - 1

    def new_head(
        self, target: TrainingTarget, vocab_ids: torch.Tensor, states: torch.Tensor
    ) -> DraftHead:
        """See `rtp_core.api.DraftMethod`."""
        layers = self.capture_layers(target.spec)
        module = new_module(target, len(layers), vocab_ids, states)
        return Eagle3Head(module, target, layers)

    def load_head(
        self,
        target: TrainingTarget,
        config: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
    ) -> DraftHead:
        """See `rtp_core.api.DraftMethod`."""
        layers = self.capture_layers(target.spec)
        return Eagle3Head(loaded_module(target, len(layers), tensors), target, layers)
