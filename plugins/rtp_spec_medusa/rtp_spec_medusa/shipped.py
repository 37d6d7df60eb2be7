"""Heads that come with this distribution, by the fingerprint of the weights they draft for."""

from __future__ import annotations

from pathlib import Path

from rtp_core.api import ModelSpec
from rtp_core.errors import ConfigError

FIELD = "plugins.spec_medusa.head"
HEADS = {"461adc29476452a25acf6089ce45b108": "smollm2-135m-instruct"}


def shipped_heads(model: ModelSpec) -> Path:
    """Raises ConfigError when there are none."""
    name = HEADS.get(model.fingerprint.partition(":")[0])
    if name is None:
        raise ConfigError(
            FIELD,
            f"no heads are shipped for this {model.architecture} of {model.num_layers} layers",
            remedy="name the directory of some that were trained for it",
        )
    return Path(__file__).parent / "heads" / name
