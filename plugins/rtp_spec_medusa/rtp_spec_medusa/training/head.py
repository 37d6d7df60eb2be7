"""What the core trains, measures and publishes of Medusa heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn import functional

from rtp_core.api import (
    HeadFiles,
    Noise,
    Prediction,
    TargetBatch,
    TargetText,
    TrainingTarget,
)
from rtp_core.errors import ModelError
from rtp_spec_medusa.training.module import Medusa

_DTYPE = torch.bfloat16


class MedusaHead:
    """See `rtp_core.api.DraftHead`. Head d reads the state of token n and guesses n + 2 + d."""

    learning_rate = 1e-3

    def __init__(self, module: Medusa, target: TrainingTarget) -> None:
        self.module = module
        self._target = target
        self._rows = target.head[module.vocab_ids].contiguous()

    @property
    def max_depth(self) -> int:
        """One token a head."""
        return self.module.heads

    def predict(self, batch: TargetBatch, progress: float) -> Iterator[Prediction]:
        """Head d at row i is held against the target's law after position i + 1 + d."""
        length = batch.token_ids.shape[1]
        row = torch.arange(length, device=batch.token_ids.device)
        begun = row >= batch.prompt_lengths[:, None] - 1
        states = batch.final.flatten(0, 1)
        for depth in range(self.module.heads):
            ahead = 1 + depth
            wanted = functional.pad(batch.label_of[:, ahead:], (0, min(ahead, length)), value=-1)
            used = ((wanted >= 0) & begun).flatten().nonzero().squeeze(1)
            logits = functional.linear(self.module(depth, states[used]), self._rows)
            yield Prediction(depth, logits, wanted.flatten()[used])

    def drafts(
        self, text: TargetText, first: int, depth: int, temperature: float, noise: Noise | None
    ) -> torch.Tensor:
        """See `rtp_core.api.DraftHead`; heads do not see each other's tokens."""
        ids, vocab_ids, found = text.token_ids, self.module.vocab_ids, []
        rows = torch.arange(first, len(ids) - 2, device=ids.device)
        for ahead in range(depth):
            state = self.module(ahead, text.final[rows])
            scores = functional.linear(state, self._rows).float()
            if noise is not None:
                scores = scores / temperature + noise(rows + 2 + ahead, vocab_ids)
            found.append(vocab_ids[scores.argmax(-1)])
        return torch.stack(found, dim=1)

    def files(self) -> HeadFiles:
        """The first repository's names; `token_map` tells the target's ids of what is drafted."""
        module, spec = self.module, self._target.spec
        tensors: dict[str, torch.Tensor] = {"token_map": module.vocab_ids}
        for head in range(module.heads):
            for block in range(module.blocks):
                at = f"{head}.{block}.linear"
                tensors[f"{at}.weight"] = module.weight.detach()[head, block].to(_DTYPE)
                tensors[f"{at}.bias"] = module.bias.detach()[head, block].to(_DTYPE)
        config = {
            "model_type": "medusa",
            "medusa_num_heads": module.heads,
            "medusa_num_layers": module.blocks,
            "hidden_size": spec.hidden_size,
            "vocab_size": spec.vocab_size,
            "truncated_vocab_size": len(module.vocab_ids),
            "original_lm_head": True,
            "torch_dtype": "bfloat16",
        }
        return HeadFiles("medusa_lm_head.safetensors", config, tensors)


@torch.no_grad()
def loaded_module(
    target: TrainingTarget, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> Medusa:
    """From what was published. Raises ModelError naming what is missing."""
    heads, blocks = config["medusa_num_heads"], config["medusa_num_layers"]
    names = [f"{head}.{block}.linear" for head in range(heads) for block in range(blocks)]
    wanted = {"token_map", *(f"{name}.{part}" for name in names for part in ("weight", "bias"))}
    if missing := sorted(wanted - tensors.keys()):
        raise ModelError(f"no Medusa heads: {', '.join(missing)} missing")
    module = Medusa(heads, blocks, target.spec.hidden_size, len(tensors["token_map"]))
    module.vocab_ids.copy_(tensors["token_map"])
    for number, name in enumerate(names):
        module.weight.view(-1, *module.weight.shape[2:])[number] = tensors[f"{name}.weight"].float()
        module.bias.view(-1, module.bias.shape[2])[number] = tensors[f"{name}.bias"].float()
    return module.to(target.embed.device)
