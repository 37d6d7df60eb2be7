"""Offers of this room."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from rtp_core.api import BuildContext, ModelFamily, Offer, Role, hookimpl

FAMILIES = {
    "LlamaForCausalLM": "llama:LlamaFamily",
    "SmolLM3ForCausalLM": "llama:SmolLM3Family",
    "MistralForCausalLM": "mistral:MistralFamily",
    "Qwen2ForCausalLM": "qwen:Qwen2Family",
    "Qwen3ForCausalLM": "qwen:Qwen3Family",
    "Qwen3MoeForCausalLM": "qwen:Qwen3MoeFamily",
    "Gemma2ForCausalLM": "gemma:Gemma2Family",
    "Gemma3ForCausalLM": "gemma:Gemma3Family",
}
"""Module and class by the architecture that config.json names."""


@hookimpl
def rtp_models() -> tuple[Offer, ...]:
    """One an architecture, and transformers for those that have none."""
    native = (Offer(Role.MODEL, name, _family(where)) for name, where in FAMILIES.items())
    return (*native, Offer(Role.MODEL, "transformers", _transformers))


def _family(where: str) -> Callable[[BuildContext, Any], ModelFamily]:
    """Imports torch when called, not before."""

    def build(context: BuildContext, options: Any) -> ModelFamily:
        del context, options
        module, name = where.split(":")
        return getattr(import_module(f"rtp_core.models.{module}"), name)()

    return build


def _transformers(context: BuildContext, options: Any) -> ModelFamily:
    del options
    from rtp_core.models.transformers.family import TransformersFamily

    return TransformersFamily(context.tensors)
