"""What the target says of each batch: computed when first asked for, kept while memory lasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from rtp_core.api import TargetBatch
from rtp_core.training.batches import TextBatch
from rtp_core.training.target import Target

_KEEP_FREE = 0.35
"""Share of a GPU's memory that keeping states leaves to the training itself."""
_ROWS = 8192
"""Positions whose logits over the whole vocabulary are in memory at a time."""


class _Kept(NamedTuple):
    captured: torch.Tensor
    final: torch.Tensor
    labelled: torch.Tensor


class Lessons:
    """`api.TargetBatch`es of `batches` for methods that read the states entering some layers."""

    def __init__(
        self,
        target: Target,
        batches: Sequence[TextBatch],
        layers: Sequence[int],
        vocab_ids: torch.Tensor,
    ) -> None:
        self._target = target
        self._batches = batches
        self._layers = tuple(layers)
        self._draftable = torch.zeros(
            target.spec.vocab_size, dtype=torch.bool, device=target.device
        )
        self._draftable[vocab_ids] = True
        self._rows = target.head[vocab_ids].contiguous()
        self._kept: dict[int, _Kept] = {}

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def num_kept(self) -> int:
        """Batches whose states are in memory."""
        return len(self._kept)

    def num_tokens(self, number: int) -> int:
        """Tokens of a batch, padding included."""
        return self._batches[number].token_ids.numel()

    @torch.no_grad()
    def states(self, number: int) -> torch.Tensor:
        """[labels, layers * hidden] of the positions of a batch that are learnt from."""
        kept = self._states(number)
        return kept.captured.flatten(0, 1)[kept.labelled]

    @torch.no_grad()
    def lesson(self, number: int) -> TargetBatch:
        """Captured states of all layers, in order; see `captured_of`."""
        batch, kept = self._batches[number], self._states(number)
        logits = functional.linear(kept.final.flatten(0, 1)[kept.labelled], self._rows)
        label_of = torch.full_like(batch.token_ids, -1).view(-1)
        label_of[kept.labelled] = torch.arange(len(kept.labelled), device=label_of.device)
        return TargetBatch(
            token_ids=batch.token_ids,
            prompt_lengths=batch.prompt_lengths,
            lengths=batch.lengths,
            captured=kept.captured,
            final=kept.final,
            laws=torch.softmax(logits.float(), dim=-1).to(logits.dtype),
            label_of=label_of.view_as(batch.token_ids),
        )

    def _states(self, number: int) -> _Kept:
        if number in self._kept:
            return self._kept[number]
        batch = self._batches[number]
        states = self._target.states(batch.token_ids, self._layers)
        kept = _Kept(states.captured, states.final, self._labelled(batch, states.final))
        if self._may_keep():
            self._kept[number] = kept
        return kept

    def _labelled(self, batch: TextBatch, final: torch.Tensor) -> torch.Tensor:
        """Flat positions before answer tokens after the first whose best token may be drafted.

        Nobody drafts the first: drafting begins with a token that was drawn.
        """
        position = torch.arange(batch.token_ids.shape[1], device=final.device)
        inside = (position >= batch.prompt_lengths[:, None]) & (
            position <= batch.lengths[:, None] - 2
        )
        places = inside.flatten().nonzero().squeeze(1)
        flat = final.flatten(0, 1)
        best = [
            functional.linear(flat[part], self._target.head).argmax(-1)
            for part in places.split(_ROWS)
        ]
        return places[self._draftable[torch.cat(best)]] if best else places

    def _may_keep(self) -> bool:
        """The host's memory keeps none: it would not save much there, and others need it."""
        if self._target.device.type != "cuda":
            return False
        free, total = torch.cuda.mem_get_info()
        return free > _KEEP_FREE * total


def captured_of(
    captured: torch.Tensor, layers: Sequence[int], wanted: Sequence[int], hidden: int
) -> torch.Tensor:
    """Of states [..., layers * hidden] those of the `wanted` layers, in their order."""
    if tuple(wanted) == tuple(layers):
        return captured
    parts = captured.split(hidden, dim=-1)
    chosen = [parts[tuple(layers).index(layer)] for layer in wanted]
    return torch.cat(chosen, dim=-1) if chosen else captured[..., :0]
