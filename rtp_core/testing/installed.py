"""A plugin as it is installed, and every check that concerns it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rtp_core.api import BuildContext, Role
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.manifest import Manifest
from rtp_core.plugins.resolve import Want, resolve
from rtp_core.testing.conformance import Make, check_name, suite
from rtp_core.testing.conformance.contract import CONTRACT

_ROLES = frozenset(role.value for role in Role)


@dataclass(frozen=True, slots=True)
class BoundCheck:
    """`subject` is an offer or ``plugin``; `run` raises like any conformance check."""

    subject: str
    name: str
    run: Callable[[], None]


@dataclass(slots=True)
class InstalledPlugin:
    """`tables` are option tables by plugin name, as under ``[plugins]`` in a configuration.

    `settings` are the suites' own: ``model_config`` (Hugging Face keys for a model family)
    and ``peer`` (a living peer for a transport).
    """

    manifest: Manifest
    manifests: Sequence[Manifest]
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    _host: PluginHost | None = None

    def checks(self) -> Iterator[BoundCheck]:
        """Contract checks, then the suite of each offer's role. Imports no plugin."""
        for contract in CONTRACT:
            yield BoundCheck("plugin", contract.__name__, partial(contract, self.manifest))
        for key in self.manifest.provides:
            role, _, name = key.partition(":")
            make = self.make(Role(role), name)
            for check in suite(Role(role)):
                extra = self._settings_for(check)
                yield BoundCheck(key, check_name(check), partial(check, make, **extra))

    def make(self, role: Role, name: str) -> Make:
        """A factory of the offer's object, loaded through the host as an engine would."""

        def build(context: BuildContext) -> Any:
            return self._loaded().build(role, name, context)

        return build

    def _loaded(self) -> PluginHost:
        """Whatever the plugin needs of this machine is taken as given."""
        if self._host is None:
            needs = {need for one in self.manifests for need in one.needs}
            machine = {need for need in needs if need.partition(":")[0] not in _ROLES}
            wants = [
                Want(key, f"--rtp-plugin {self.manifest.name}", "under test")
                for key in self.manifest.provides
            ]
            host = PluginHost(self.manifests, self.tables)
            host.load(resolve(wants, self.manifests, frozenset(machine)))
            self._host = host
        return self._host

    def _settings_for(self, check: Callable[..., None]) -> dict[str, Any]:
        """Settings that this check has a parameter for."""
        names = inspect.signature(check).parameters
        return {name: self.settings[name] for name in names if name in self.settings}
