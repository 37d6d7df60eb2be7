"""Every failure of a plugin names the plugin, its version and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtp_core.errors import PluginError, RtpError
from rtp_core.plugins.manifest import Manifest

REPORT = "report it to the plugin's authors, or ask for another offer"


def failure(manifest: Manifest, message: str, remedy: str) -> PluginError:
    """The error to raise for `manifest`."""
    return PluginError(manifest.name, manifest.version, message, remedy=remedy)


def call(manifest: Manifest, doing: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run plugin code. Its RtpErrors pass; any other exception is chained to a PluginError."""
    try:
        return function(*arguments)
    except RtpError:
        raise
    except Exception as error:
        remedy = f"reinstall {manifest.distribution}; if it stays, {REPORT}"
        message = f"{doing} failed: {type(error).__name__}: {error}"
        raise failure(manifest, message, remedy) from error
