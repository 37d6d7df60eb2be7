"""Offers of this room."""

from __future__ import annotations

from typing import Any

from rtp_core.api import AttentionBackend, BuildContext, Offer, Role, hookimpl
from rtp_core.errors import ConfigError


@hookimpl
def rtp_attention_backends() -> tuple[Offer, ...]:
    """torch for any device, Triton for CUDA."""
    return Offer(Role.ATTENTION, "torch", _torch), Offer(Role.ATTENTION, "triton", _triton)


def _torch(context: BuildContext, options: Any) -> AttentionBackend:
    del options
    from rtp_core.execution.torch_attention import TorchAttention

    return TorchAttention(context.device)


def _triton(context: BuildContext, options: Any) -> AttentionBackend:
    del options
    if context.device != "cuda":
        raise ConfigError(
            "model.attention",
            f"triton needs a CUDA device, the model runs on {context.device}",
            remedy="use model.attention = auto",
        )
    from rtp_core.execution.device.triton_attention import TritonAttention

    return TritonAttention(context.device)
