"""Offers of this distribution."""

from __future__ import annotations

from dataclasses import dataclass

from rtp_core.api import BuildContext, Offer, Role, Speculator, hookimpl
from rtp_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RecycleOptions:
    """``[plugins.spec_recycle]``: contexts kept for a tenant, tenants kept."""

    max_contexts: int = 32768
    max_tenants: int = 32


@hookimpl
def rtp_plugin_options() -> type:
    return RecycleOptions


@hookimpl
def rtp_speculators() -> tuple[Offer, ...]:
    return (Offer(Role.SPECULATOR, "recycle", _build),)


def _build(context: BuildContext, options: RecycleOptions) -> Speculator:
    from rtp_spec_recycle.recycler import Recycler

    for name in ("max_contexts", "max_tenants"):
        if getattr(options, name) < 1:
            raise ConfigError(
                f"plugins.spec_recycle.{name}",
                f"{getattr(options, name)} keeps nothing",
                remedy="give at least 1",
            )
    limits = context.limits
    return Recycler(limits.max_draft_tokens, options.max_contexts, options.max_tenants)
