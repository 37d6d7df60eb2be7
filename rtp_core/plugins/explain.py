"""Which offer fills each role and why, and for what is off, why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rtp_core.api import Role
from rtp_core.config.schema import EngineConfig
from rtp_core.plugins.known import PACKAGES
from rtp_core.plugins.manifest import Manifest
from rtp_core.plugins.resolve import Resolution
from rtp_core.plugins.wants import why

_EMPTY = {
    Role.SPECULATOR: "speculation.methods is empty",
    Role.KV_TIER: "kv.tiers is empty",
    Role.ENCODER: "modality.encoders is empty",
    Role.SERVE_ROLE: "pd.role is both",
    Role.TRANSPORT: "pd.role is both",
    Role.KV_FORMAT: "the KV store keeps blocks in model.dtype",
}
_NOT_CHOSEN = frozenset(
    {Role.MODEL, Role.COMMAND, Role.ROUTES, Role.TOOL_PARSER, Role.REASONING_PARSER}
)
"""Roles that no setting of the engine selects: the model, its chat template or a call does."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One line: `offer`, `plugin` and `version` are None where the core itself decides."""

    role: str
    offer: str | None
    plugin: str | None
    version: str | None
    on: bool
    reason: str


def explain(
    config: EngineConfig,
    resolution: Resolution,
    manifests: Sequence[Manifest],
    decided: Sequence[tuple[str, str, str]] = (),
) -> tuple[Feature, ...]:
    """Features that are on, then those that are off.

    `decided`: (role, form, reason) of what the engine settled itself.
    """
    return (*_selected(resolution), *_core(config, decided), *_off(resolution, manifests))


def to_json(features: Sequence[Feature]) -> list[dict[str, Any]]:
    """Plain data with the keys role, offer, plugin, version, on, reason."""
    return [asdict(feature) for feature in features]


def _selected(resolution: Resolution) -> Iterator[Feature]:
    for want in (*resolution.wants, *resolution.needed):
        owner = resolution.owners[want.key]
        role, _, name = want.key.partition(":")
        yield Feature(role, name, owner.name, owner.version, True, want.reason)


def _core(config: EngineConfig, decided: Sequence[tuple[str, str, str]]) -> Iterator[Feature]:
    """What the core does itself."""
    for role, form, reason in decided:
        yield Feature(role, form, None, None, True, reason)
    caching = config.kv.prefix_caching
    yield Feature("prefix_caching", None, None, None, caching, why(config, "kv.prefix_caching"))


def _off(resolution: Resolution, manifests: Sequence[Manifest]) -> Iterator[Feature]:
    on = {want.key.partition(":")[0] for want in (*resolution.wants, *resolution.needed)}
    for role, reason in _EMPTY.items():
        if role.value not in on:
            yield Feature(role.value, None, None, None, False, reason)
    yield from _unselected(resolution, manifests)
    provided = {offer for manifest in manifests for offer in manifest.provides}
    for key, package in PACKAGES.items():
        if key not in provided:
            role, _, name = key.partition(":")
            yield Feature(role, name, None, None, False, f"not installed (pip install {package})")


def _unselected(resolution: Resolution, manifests: Sequence[Manifest]) -> Iterator[Feature]:
    for manifest in manifests:
        if manifest.broken is not None:
            reason = f"broken: {manifest.broken}"
            yield Feature("plugin", None, manifest.name, manifest.version, False, reason)
            continue
        for key in manifest.provides:
            role, _, name = key.partition(":")
            if key not in resolution.owners and Role(role) not in _NOT_CHOSEN:
                yield Feature(
                    role, name, manifest.name, manifest.version, False, "installed, not selected"
                )
