"""Offers of this room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rtp_core.api import BuildContext, Offer, Role, Speculator, hookimpl
from rtp_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SpeculationOptions:
    """Lengths of the suffix that is looked up, longest first."""

    ngram_min: int = 2
    ngram_max: int = 4


@hookimpl
def rtp_plugin_options() -> type:
    """``[plugins."core.speculation"]``."""
    return SpeculationOptions


@hookimpl
def rtp_speculators() -> tuple[Offer, ...]:
    """Prompt lookup."""
    return (Offer(Role.SPECULATOR, "ngram", _ngram),)


def _ngram(context: BuildContext, options: Any) -> Speculator:
    from rtp_core.speculation.ngram import NgramSpeculator

    if not 1 <= options.ngram_min <= options.ngram_max <= 16:
        raise ConfigError(
            'plugins."core.speculation"',
            f"ngram_min {options.ngram_min} and ngram_max {options.ngram_max} are out of bounds",
            remedy="1 <= ngram_min <= ngram_max <= 16",
        )
    return NgramSpeculator(options.ngram_min, options.ngram_max, context.limits.max_draft_tokens)
