"""What a mask does to logits: the definition, in torch."""

from __future__ import annotations

import torch


def apply_masks(
    logits: torch.Tensor, masks: torch.Tensor, places: torch.Tensor, vocab_size: int
) -> None:
    """In place: -inf where a row's mask has no bit. float32 or bfloat16 [rows, padded vocab].

    masks int32 [masks, ceil(vocab / 32)], token t at bit t % 32 of word t // 32; places int32
    [rows]: the row's mask, -1 for none. What lies past the vocabulary stays.
    """
    bits = masks[:, :, None] >> torch.arange(32, dtype=torch.int32, device=masks.device) & 1
    barred = bits.flatten(1)[:, :vocab_size] == 0
    under = places >= 0
    own = logits[:, :vocab_size]
    own.masked_fill_(barred[places.long().clamp(min=0)] & under[:, None], float("-inf"))
