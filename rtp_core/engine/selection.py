"""Plugins that a configuration selects, loaded."""

from __future__ import annotations

from rtp_core.config.schema import EngineConfig
from rtp_core.plugins.discover import discover
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.resolve import Resolution, resolve
from rtp_core.plugins.wants import wants


def load_plugins(
    config: EngineConfig, architecture: str, device: str
) -> tuple[PluginHost, Resolution]:
    """Raises ResolutionError for what is not installed, PluginError for what does not load."""
    manifests = discover()
    capabilities = frozenset({f"device:{device}"})
    resolution = resolve(wants(config, architecture, device), manifests, capabilities)
    host = PluginHost(manifests, config.plugins)
    host.load(resolution)
    return host, resolution
