"""Which of our packages supplies an offer that is not installed."""

from __future__ import annotations

PACKAGES = {
    "speculator:eagle": "rtp-spec-eagle",
    "speculator:medusa": "rtp-spec-medusa",
    "kv_store:adaptive": "rtp-kvquant",
    "encoder:vision": "rtp-vision",
    "role:encoder": "rtp-vision",
    "role:prefill": "rtp-pd",
    "role:decode": "rtp-pd",
    "transport:tcp": "rtp-pd",
    "transport:shm": "rtp-pd",
    "transport:nixl": "rtp-pd",
    "transport:mooncake": "rtp-pd",
}
"""Offer to distribution; only hints and listings use it."""

_BY_ROLE = {"transport": "rtp-pd", "router": "rtp-pd"}


def package_for(key: str) -> str | None:
    """The distribution that offers ``role:name``, or the role's usual one."""
    return PACKAGES.get(key) or _BY_ROLE.get(key.partition(":")[0])
