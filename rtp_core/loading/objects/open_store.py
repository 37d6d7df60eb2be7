"""The store that an address names."""

from __future__ import annotations

from collections.abc import Sequence

from rtp_core.errors import ConfigError
from rtp_core.loading.objects.fsspec_store import FsspecStore, open_file_system
from rtp_core.loading.objects.http import HttpStore
from rtp_core.loading.objects.store import ObjectStore


def open_store(address: str, options: Sequence[str]) -> ObjectStore:
    """`options` are KEY=VALUE of fsspec's file system. Raises ConfigError."""
    scheme = address.partition("://")[0]
    if scheme not in ("http", "https"):
        return FsspecStore(address, open_file_system(scheme, _pairs(options)))
    if options:
        raise ConfigError(
            "loading.source_options", f"{scheme}:// takes none", remedy="leave it out"
        )
    return HttpStore(address)


def _pairs(options: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for one in options:
        key, equals, value = one.partition("=")
        if not equals:
            raise ConfigError("loading.source_options", f"{one!r} is not written KEY=VALUE")
        pairs[key] = value
    return pairs
