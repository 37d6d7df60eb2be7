"""Soft cross-entropy against the target's laws."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from rtp_core.api import Prediction

DECAY = 0.8
"""Weight of a depth relative to the one before: what comes later counts only if all before was
right."""
_ROWS = 4096


class _SoftCrossEntropy(torch.autograd.Function):
    """Sum over rows of -sum(law * log softmax(logits)); of the laws those at `labels`.

    The gradient, softmax(logits) - law, is made in the forward pass in place of what autograd
    would keep: three times less memory moves, and that is what bounds it.
    """

    @staticmethod
    def forward(
        context: torch.autograd.function.FunctionCtx,
        logits: torch.Tensor,
        laws: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        gradient = torch.empty_like(logits)
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        for begin in range(0, len(logits), _ROWS):
            at = slice(begin, begin + _ROWS)
            part, law = logits[at], laws[labels[at]]
            total += part.float().logsumexp(-1).sum() - _dot(part, law)
            gradient[at] = torch.softmax(part, dim=-1) - law
        context.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        context: torch.autograd.function.FunctionCtx, scale: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        (gradient,) = context.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return gradient * scale.to(gradient.dtype), None, None


def _dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """float32 sum of all products."""
    return torch.linalg.vecdot(one, other).float().sum()


def loss_of(
    predictions: Iterable[Prediction], laws: torch.Tensor, *, look: bool
) -> tuple[torch.Tensor, list[float]]:
    """Mean over the laws, depths weighted; and, for those who look, by depth how often the best
    token is the target's."""
    total = torch.zeros((), device=laws.device)
    agreement = []
    for one in predictions:
        value = _SoftCrossEntropy.apply(one.logits, laws, one.labels)
        total = total + DECAY**one.depth / max(1, len(laws)) * value
        if look:
            best, wanted = one.logits.detach().argmax(-1), laws[one.labels].argmax(-1)
            agreement.append((best == wanted).float().mean().item())
    return total, agreement
