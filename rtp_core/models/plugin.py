"""Offers of this room."""

from __future__ import annotations

from typing import Any

from rtp_core.api import BuildContext, ModelFamily, Offer, Role, hookimpl


@hookimpl
def rtp_models() -> tuple[Offer, ...]:
    """Llama covers Llama 2, 3, 3.x and SmolLM2; transformers whatever has no native family."""
    return (
        Offer(Role.MODEL, "LlamaForCausalLM", _llama),
        Offer(Role.MODEL, "transformers", _transformers),
    )


def _llama(context: BuildContext, options: Any) -> ModelFamily:
    del context, options
    from rtp_core.models.llama import LlamaFamily

    return LlamaFamily()


def _transformers(context: BuildContext, options: Any) -> ModelFamily:
    del options
    from rtp_core.models.transformers.family import TransformersFamily

    return TransformersFamily(context.tensors)
