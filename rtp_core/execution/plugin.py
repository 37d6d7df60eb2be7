"""Offers of this room."""

from __future__ import annotations

from typing import Any

from rtp_core.api import AttentionBackend, BuildContext, Offer, Role, hookimpl


@hookimpl
def rtp_attention_backends() -> tuple[Offer, ...]:
    """The torch backend."""
    return (Offer(Role.ATTENTION, "torch", _torch),)


def _torch(context: BuildContext, options: Any) -> AttentionBackend:
    del options
    from rtp_core.execution.torch_attention import TorchAttention

    return TorchAttention(context.device)
