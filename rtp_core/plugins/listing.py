"""Installed plugins as rows of plain data, for `rtp plugins` and ``/v1/plugins``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtp_core.plugins.manifest import Manifest
from rtp_core.plugins.resolve import Resolution


def list_plugins(
    manifests: Sequence[Manifest], resolution: Resolution | None
) -> list[dict[str, Any]]:
    """One row a plugin. `selected` is None when no configuration was resolved."""
    selected = None if resolution is None else {one.name for one in resolution.plugins}
    return [
        {
            "name": manifest.name,
            "version": manifest.version,
            "api": manifest.api,
            "provides": list(manifest.provides),
            "needs": list(manifest.needs),
            "conflicts": list(manifest.conflicts),
            "summary": manifest.summary,
            "selected": None if selected is None else manifest.name in selected,
            "broken": manifest.broken,
        }
        for manifest in manifests
    ]
