"""Before the first request: does the model, served our way, give the logits it gives alone?

Two short texts, the first in two pieces, share the engine's pages. Whatever does not survive
packing, chunking or our attention (state between tokens, positions counted by the model,
a score modified on the way) shows here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from rtp_core.api import BoundAttention, CausalModel, PlanRow
from rtp_core.models.transformers.dispatch import NAME
from rtp_core.models.transformers.library import refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("rtp.models")
_LARGEST_ERROR = {"float32": 1e-3, "bfloat16": 0.1}
"""Root mean square of the difference over that of the logits around their mean.

Two orders of summation in bfloat16 differ by a few percent in a deep model, a wrong position
or scale by about one.
"""


@torch.inference_mode()
def prove(
    model: PreTrainedModel,
    served: CausalModel,
    attention: BoundAttention,
    block_size: int,
    num_groups: int,
) -> float:
    """The error found. Overwrites blocks 0 and 1 of every group; raises ModelError if too big."""
    texts = _texts(model, block_size)
    expected = torch.cat(_alone(model, texts))
    found = _paged(served, attention, texts, num_groups)
    spread = (expected - expected.mean(dim=1, keepdim=True)).square().mean().sqrt()
    error = float((found - expected).square().mean().sqrt() / spread)
    name = type(model).__name__
    log.info("model_proved architecture=%s error=%.2e", name, error)
    if not error <= _LARGEST_ERROR[str(model.dtype).removeprefix("torch.")]:
        raise refusal(
            name, f"its logits in the engine differ from its own by {error:.1%} on a short text"
        )
    return error


def _texts(model: PreTrainedModel, block_size: int) -> tuple[list[int], list[int]]:
    """A text that fills a block and a shorter one, of ids spread over the vocabulary."""
    size = model.config.get_text_config().vocab_size
    ids = [(number * 7919 + 13) % size for number in range(2 * block_size)]
    return ids[:block_size], ids[block_size : block_size + max(1, block_size // 2)]


def _alone(model: PreTrainedModel, texts: tuple[list[int], ...]) -> list[torch.Tensor]:
    """float32 logits [tokens, vocab_size] of each text by transformers' eager attention."""
    model.set_attn_implementation("eager")
    try:
        return [
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
            .logits[0]
            .float()
            for ids in texts
        ]
    finally:
        model.set_attn_implementation(NAME)


def _paged(
    served: CausalModel,
    attention: BoundAttention,
    texts: tuple[list[int], list[int]],
    num_groups: int,
) -> torch.Tensor:
    """float32 logits of both texts, in the order of the texts."""
    first, second = texts
    cut = len(first) // 2

    def row(ids: list[int], start: int, block: int) -> PlanRow:
        return PlanRow(str(block), ids, start, 0, True, ((block,),) * num_groups)

    begun = _step(served, attention, [row(first[:cut], 0, 0)]) if cut else None
    rest = _step(served, attention, [row(first[cut:], cut, 0), row(second, 0, 1)])
    return rest if begun is None else torch.cat((begun, rest))


def _step(served: CausalModel, attention: BoundAttention, rows: list[PlanRow]) -> torch.Tensor:
    ids = torch.tensor([token for row in rows for token in row.token_ids])
    plan = attention.plan(rows)
    return served.logits(served.forward(ids, attention, plan).hidden)
