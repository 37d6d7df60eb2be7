"""The residual stream between operations: what a model file passes on without looking.

A linear layer that updates the stream leaves its product pending, because whoever reads the
stream next, a norm as a rule, adds it for nothing as it loads the row. `settled` gives the plain
tensor. Nothing is ever changed under a holder's hands: adding up replaces the object's tensors
by new ones of the same sum.
"""

from __future__ import annotations

import torch

from rtp_kernels.gpu.residual_norm import add_up, add_up_and_norm


class ResidualStream:
    """residual [tokens, hidden] + the sum of partials [splits, tokens, hidden], if any.

    `post_norm` (weight, eps) is applied to that sum before it is added (Gemma's post norms).
    """

    __slots__ = ("partials", "post_norm", "residual")

    def __init__(
        self,
        residual: torch.Tensor,
        partials: torch.Tensor | None,
        post_norm: tuple[torch.Tensor, float] | None = None,
    ) -> None:
        self.residual = residual
        self.partials = partials
        self.post_norm = post_norm

    @property
    def shape(self) -> torch.Size:
        """[tokens, hidden]."""
        return self.residual.shape

    def settle(self) -> torch.Tensor:
        """The sum as a tensor; nothing is pending afterwards."""
        if self.partials is not None:
            self.residual = add_up(self.residual, self.partials, self.post_norm)
            self.partials = self.post_norm = None
        return self.residual

    def normed(self, norm: torch.Tensor, eps: float) -> torch.Tensor:
        """The norm of the sum; nothing is pending afterwards."""
        args = (self.residual, self.partials, self.post_norm)
        self.residual, out = add_up_and_norm(*args, (norm, eps))
        self.partials = self.post_norm = None
        return out


Stream = torch.Tensor | ResidualStream


def settled(x: Stream) -> torch.Tensor:
    """The stream as a tensor [tokens, hidden]."""
    return x if isinstance(x, torch.Tensor) else x.settle()


def normed(x: Stream, norm: torch.Tensor, eps: float) -> torch.Tensor:
    """RMS norm of the stream, [tokens, hidden]; adds up what is pending on the way."""
    stream = ResidualStream(x.contiguous(), None) if isinstance(x, torch.Tensor) else x
    return stream.normed(norm, eps)


def updated(
    x: Stream, partials: torch.Tensor, post_norm: tuple[torch.Tensor, float] | None = None
) -> ResidualStream:
    """The stream with an update pending; what was pending before is added up first."""
    return ResidualStream(settled(x).contiguous(), partials, post_norm)
