"""``draft_trainer:medusa``: Medusa-1 heads beside a frozen target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rtp_core.api import DraftHead, ModelSpec, TrainingTarget
from rtp_spec_medusa.training.head import MedusaHead, loaded_module
from rtp_spec_medusa.training.module import Medusa

_HEADS, _BLOCKS = 4, 2


class MedusaTrainer:
    """See `rtp_core.api.DraftMethod`."""

    def capture_layers(self, spec: ModelSpec) -> tuple[int, ...]:
        """None: the last state is enough."""
        return ()

    def new_head(
        self, target: TrainingTarget, vocab_ids: torch.Tensor, states: torch.Tensor
    ) -> DraftHead:
        """See `rtp_core.api.DraftMethod`."""
        module = Medusa(_HEADS, _BLOCKS, target.spec.hidden_size, len(vocab_ids))
        module.vocab_ids.copy_(vocab_ids)
        return MedusaHead(module.to(vocab_ids.device), target)

    def load_head(
        self,
        target: TrainingTarget,
        config: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
    ) -> DraftHead:
        """See `rtp_core.api.DraftMethod`."""
        return MedusaHead(loaded_module(target, config, tensors), target)
