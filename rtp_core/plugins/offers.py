"""What hooks returned, held against the contract and the plugin's manifest."""

from __future__ import annotations

from typing import Any

from rtp_core.api import Offer, Role
from rtp_core.plugins.attribution import REPORT, call, failure
from rtp_core.plugins.hooks import ROLES_OF, Implementations
from rtp_core.plugins.manifest import Manifest


def collect_offers(manifest: Manifest, implementations: Implementations) -> dict[str, Offer]:
    """The plugin's offers by key. Raises PluginError unless they equal its ``provides``."""
    found: dict[str, Offer] = {}
    for hook in ROLES_OF:
        for function in implementations(hook):
            for offer in _checked(manifest, hook, call(manifest, hook, function)):
                if offer.key in found:
                    raise failure(manifest, f"{hook} offers {offer.key} twice", REPORT)
                found[offer.key] = offer
    _check_provides(manifest, frozenset(found))
    return found


def _checked(manifest: Manifest, hook: str, offers: Any) -> tuple[Offer, ...]:
    if not isinstance(offers, tuple) or not all(isinstance(one, Offer) for one in offers):
        raise failure(manifest, f"{hook} returned {offers!r}", "return a tuple of Offer")
    for offer in offers:
        # A role given as a plain string equals the member but has no `value`.
        if not isinstance(offer.role, Role) or offer.role not in ROLES_OF[hook]:
            allowed = ", ".join(sorted(ROLES_OF[hook]))
            message = f"{hook} offers {offer.name!r} in the role {offer.role!r}"
            raise failure(manifest, message, f"it may offer Role: {allowed}")
        if not callable(offer.build):
            message = f"{offer.key} has no factory"
            raise failure(manifest, message, "give it a callable (context, options)")
    return offers


def _check_provides(manifest: Manifest, found: frozenset[str]) -> None:
    promised = frozenset(manifest.provides)
    remedy = "make plugin.toml and the hooks agree"
    if missing := sorted(promised - found):
        message = f"plugin.toml provides {', '.join(missing)}, but no hook offers it"
        raise failure(manifest, message, remedy)
    if extra := sorted(found - promised):
        message = f"hooks offer {', '.join(extra)}, which plugin.toml does not provide"
        raise failure(manifest, message, remedy)
