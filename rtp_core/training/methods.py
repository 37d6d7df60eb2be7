"""Methods that installed plugins bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtp_core.api import BuildContext, DraftMethod, Role
from rtp_core.errors import ConfigError
from rtp_core.plugins.discover import discover
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.resolve import Want, resolve

_FLAG = "--method"


def load_methods(names: Sequence[str], context: BuildContext) -> Mapping[str, DraftMethod]:
    """By name, in their order. Raises ConfigError, ResolutionError or PluginError."""
    if not names or len(set(names)) != len(names):
        raise ConfigError(_FLAG, f"{','.join(names)!r} names no method, or one twice")
    manifests = discover()
    wants = [Want(f"{Role.DRAFT_TRAINER.value}:{name}", _FLAG, "called") for name in names]
    host = PluginHost(manifests, {})
    host.load(resolve(wants, manifests, frozenset({f"device:{context.device}"})))
    return {name: host.build(Role.DRAFT_TRAINER, name, context) for name in names}
