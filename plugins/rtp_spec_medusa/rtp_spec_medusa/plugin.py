"""Offers of this distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rtp_core.api import BuildContext, DraftMethod, Offer, Role, Speculator, hookimpl


@dataclass(frozen=True, slots=True)
class MedusaOptions:
    """``[plugins.spec_medusa]``.

    `head`: a directory with config.json and safetensors files, or such a file beside its
    config.json; unset takes the heads that were trained for this model, if some are shipped.
    `weights`: the form of the heads' matrices on a CPU; auto is 8-bit codes for bfloat16.
    `any_model`: also take heads whose configuration names another model's fingerprint.
    """

    head: str | None = None
    weights: Literal["auto", "dense", "int8", "int4"] = "auto"
    any_model: bool = False


@hookimpl
def rtp_plugin_options() -> type:
    """``[plugins.spec_medusa]``."""
    return MedusaOptions


@hookimpl
def rtp_speculators() -> tuple[Offer, ...]:
    """Trained heads."""
    return (Offer(Role.SPECULATOR, "medusa", _build),)


@hookimpl
def rtp_draft_trainers() -> tuple[Offer, ...]:
    """Heads side by side, on the last state."""
    return (Offer(Role.DRAFT_TRAINER, "medusa", _trainer),)


def _build(context: BuildContext, options: MedusaOptions) -> Speculator:
    from rtp_spec_medusa.build import build

    return build(context, options)


def _trainer(context: BuildContext, options: MedusaOptions) -> DraftMethod:
    from rtp_spec_medusa.training.trainer import MedusaTrainer

    del context, options
    return MedusaTrainer()
