"""A transformers model as a `CausalModel`: its layers, our attention and cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from rtp_core.api import AttentionPlan, BoundAttention, ForwardOutput, Scoring
from rtp_core.models.transformers.dispatch import Visibility, answering
from rtp_core.models.transformers.head import Head
from rtp_core.models.transformers.proof import prove

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_VISIBILITY = Visibility()


class TransformersModel:
    """See `api.CausalModel`. `hidden` is what the decoder returns: after the final norm.

    The tokens of a step run as one sequence [1, tokens]; only attention knows better.
    """

    def __init__(self, model: PreTrainedModel, num_groups: int) -> None:
        self._model = model
        self._num_groups = num_groups
        self._decoder = model.get_decoder()
        self._head = Head(model, self._decoder)

    def forward(
        self,
        token_ids: torch.Tensor,
        attention: BoundAttention,
        plan: AttentionPlan,
        capture_layers: Sequence[int] = (),
        wanted: torch.Tensor | None = None,
    ) -> ForwardOutput:
        """See `api.CausalModel`."""
        with answering(Paged(attention, plan)):
            done = self._decoder(
                input_ids=token_ids[None],
                attention_mask=torch.ones_like(token_ids)[None],
                position_ids=attention.positions(plan)[None],
                use_cache=False,
                **({"output_hidden_states": True} if capture_layers else {}),
            )
        captured = {layer: done.hidden_states[layer][0] for layer in capture_layers}
        hidden = done.last_hidden_state[0]
        return ForwardOutput(hidden if wanted is None else hidden[wanted], captured)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden_size] -> float32 [rows, vocab_size]."""
        return self._head(hidden).float()

    def check(self, attention: BoundAttention, block_size: int) -> None:
        """See `api.CheckedModel`."""
        prove(self._model, self, attention, block_size, self._num_groups)


class Paged:
    """The `ForwardPass` of a step: keys and values go to the pages, attention reads them."""

    def __init__(self, attention: BoundAttention, plan: AttentionPlan) -> None:
        self._attention = attention
        self._plan = plan

    def mask(self, function: Callable[..., Any]) -> Visibility:
        """Not read again: the plan knows what each token sees."""
        del function
        return _VISIBILITY

    def attend(
        self,
        module: torch.nn.Module,
        heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        mask: Any,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        """See `dispatch.ForwardPass`. Values narrower than keys are stored with zeros."""
        del mask
        q, k, v = (one[0].transpose(0, 1) for one in heads)
        width, value_width = k.shape[-1], v.shape[-1]
        if value_width < width:
            v = functional.pad(v, (0, width - value_width))
        scale = options.get("scaling")
        scoring = Scoring(
            width**-0.5 if scale is None else float(scale),
            options.get("softcap"),
            options.get("s_aux"),
        )
        out = self._attention.attend(q, k, v, int(module.layer_idx), self._plan, scoring)  # pyright: ignore[reportArgumentType]
        out = out.view(1, q.shape[0], q.shape[1], width)
        return out[..., :value_width]
