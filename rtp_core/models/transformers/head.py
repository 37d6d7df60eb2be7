"""The head of a causal model, run by the model's own code on hidden states that we give it.

Whatever a model does after its decoder (logit scales, soft caps) happens there, so nothing
of it needs to be known here.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from rtp_core.models.transformers.library import refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Given(torch.nn.Module):
    """In the decoder's place: answers with the embeddings it was called with."""

    def forward(self, *args: Any, inputs_embeds: torch.Tensor, **kwargs: Any) -> _Answer:
        del args, kwargs
        return _Answer(inputs_embeds)


class _Answer:
    """A model output with hidden states and nothing else."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> torch.Tensor:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        """Router logits, caches, attentions: absent."""
        if name.startswith("__"):
            raise AttributeError(name)


class Head:
    """Logits of hidden states that the decoder returned (after its final norm)."""

    def __init__(self, model: PreTrainedModel, decoder: torch.nn.Module) -> None:
        """Shares the model's modules. Raises ModelError when the decoder is not part of it."""
        names = (name for name, module in model.named_modules() if module is decoder)
        path = next(names, "")
        if not path:
            raise refusal(type(model).__name__, "its head is not apart from its decoder")
        self._model = _with_module(model, path.split("."), _Given())

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden_size] -> [rows, vocab_size]."""
        return self._model(inputs_embeds=hidden[None], use_cache=False).logits[0]


def _with_module(module: Any, path: list[str], replacement: torch.nn.Module) -> Any:
    """A shallow copy of `module` with another module at `path`; the original is left as it is."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    name, *rest = path
    if rest:
        replacement = _with_module(module._modules[name], rest, replacement)
    twin._modules[name] = replacement
    return twin
