"""The only place that reads the process environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

PREFIX = "RTP_"
SEPARATOR = "__"


def process_environment() -> Mapping[str, str]:
    """A copy of the environment as it is now."""
    return dict(os.environ)


def cache_dir() -> Path:
    """Where models, tokenizers and secrets are kept: ``RTP_CACHE_DIR``, else under XDG's.

    By the XDG base directory rules ``XDG_CACHE_HOME`` counts only if it is absolute.
    """
    own = os.environ.get("RTP_CACHE_DIR")
    if own:
        return Path(own).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache"
    return home / "rtp"


def settings_in(environ: Mapping[str, str]) -> dict[tuple[str, ...], tuple[str, str]]:
    """Variables spelled ``RTP_SECTION__KEY``: (section, …, key) -> (variable, value).

    A single underscore is not a setting: container platforms set names like
    ``RTP_SERVER_PORT`` for services they discover.
    """
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for name in sorted(environ):
        if name.startswith(PREFIX) and SEPARATOR in name:
            path = tuple(name.removeprefix(PREFIX).lower().split(SEPARATOR))
            found[path] = (name, environ[name])
    return found


def stray_settings(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none, for want of a second underscore."""
    known = {f"{PREFIX}CACHE_DIR"}
    return sorted(
        name
        for name in environ
        if name.startswith(PREFIX) and SEPARATOR not in name and name not in known
    )
