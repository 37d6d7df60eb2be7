"""Weights as options spell them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rtp_core.errors import ConfigError

Weights = Callable[[str], float]
"""Weight of a tenant by name."""


def read_weights(entries: Sequence[str], default: float) -> Weights:
    """From ``tenant=number`` entries. Raises ConfigError for anything else."""
    table: dict[str, float] = {}
    for entry in entries:
        tenant, _, number = entry.rpartition("=")
        table[tenant] = _positive("weights", entry, number)
        if "=" not in entry:
            raise _wrong("weights", entry)
    fallback = _positive("default_weight", default, default)
    return lambda tenant: table.get(tenant, fallback)


def _positive(field: str, shown: object, number: str | float) -> float:
    try:
        weight = float(number)
    except ValueError:
        raise _wrong(field, shown) from None
    if not (math.isfinite(weight) and weight > 0):
        raise _wrong(field, shown)
    return weight


def _wrong(field: str, shown: object) -> ConfigError:
    return ConfigError(
        f"plugins.wfq.{field}",
        f"{shown!r} is not a weight",
        remedy='write tenant=number with a number above 0, like "gold=3"',
    )
