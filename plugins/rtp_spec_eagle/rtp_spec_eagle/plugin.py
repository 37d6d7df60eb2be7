"""Offers of this distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rtp_core.api import BuildContext, DraftMethod, Offer, Role, Speculator, hookimpl


@dataclass(frozen=True, slots=True)
class EagleOptions:
    """``[plugins.spec_eagle]``.

    `head`: a directory with config.json and safetensors files, or such a file beside its
    config.json; unset takes the head that was trained for this model, if one is shipped.
    `layer_ids`: which convention a head's own list of layers follows; auto goes by its layout.
    `weights`: the form of the head's matrices on a CPU; auto is 8-bit codes for bfloat16.
    `any_model`: also take a head whose configuration names another model's fingerprint.
    """

    head: str | None = None
    layer_ids: Literal["auto", "entering", "leaving"] = "auto"
    weights: Literal["auto", "dense", "int8", "int4"] = "auto"
    any_model: bool = False


@hookimpl
def rtp_plugin_options() -> type:
    """``[plugins.spec_eagle]``."""
    return EagleOptions


@hookimpl
def rtp_speculators() -> tuple[Offer, ...]:
    """A trained head."""
    return (Offer(Role.SPECULATOR, "eagle", _build),)


@hookimpl
def rtp_draft_trainers() -> tuple[Offer, ...]:
    """Heads by training-time test."""
    return (Offer(Role.DRAFT_TRAINER, "eagle", _trainer),)


def _build(context: BuildContext, options: EagleOptions) -> Speculator:
    from rtp_spec_eagle.build import build

    return build(context, options)


def _trainer(context: BuildContext, options: EagleOptions) -> DraftMethod:
    from rtp_spec_eagle.training.trainer import EagleTrainer

    del context, options
    return EagleTrainer()
