"""The host of one engine: loads selected plugins, asks their hooks, hands out offers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pluggy

from rtp_core.api import BuildContext, Offer, Role, hookspecs
from rtp_core.config.rules import nearest
from rtp_core.errors import ConfigError, ResolutionError
from rtp_core.plugins.attribution import REPORT, call, failure
from rtp_core.plugins.inspection import check_implementations
from rtp_core.plugins.manifest import Manifest
from rtp_core.plugins.offers import collect_offers
from rtp_core.plugins.options import options_type, read_options
from rtp_core.plugins.resolve import Resolution
from rtp_core.plugins.shapes import lacking_members


class PluginHost:
    """Set-up only: after `seal` the engine holds built parts and no hook is called again.

    Nothing is global, so that engines with different plugins share a process.
    """

    def __init__(
        self, manifests: Sequence[Manifest], plugin_options: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.manifests = tuple(manifests)
        self._tables = plugin_options
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._options: dict[str, Any] = {}
        self._offers: dict[str, tuple[Offer, Manifest]] = {}
        self._unbuilt: dict[str, str] = {}
        self._sealed = False
        self._check_tables()

    def load(self, resolution: Resolution) -> None:
        """Import the resolved plugins, and no other; collect and check their offers.

        Raises PluginError for a plugin that fails or breaks the contract, ConfigError for
        options it does not have.
        """
        for manifest in resolution.plugins:
            if manifest.name not in self._options:
                self._check_open(manifest)
                self._register(manifest)
                self._read_options(manifest)
                self._collect(manifest)
        self._unbuilt |= {want.key: want.field for want in resolution.wants}

    def build(self, role: Role, name: str, context: BuildContext) -> Any:
        """The object that offer ``role:name`` makes; see `api.Offer` for its type.

        A plugin's own RtpError passes; anything else it raises becomes a PluginError.
        """
        key = f"{role.value}:{name}"
        if key not in self._offers:
            raise ResolutionError(f"{key} is not loaded", remedy=nearest(key, self._offers))
        offer, manifest = self._offers[key]
        self._check_open(manifest)
        options = self._options[manifest.name]
        built = call(manifest, f"building {key}", offer.build, context, options)
        if lacking := call(manifest, f"reading {key}", lacking_members, role, built):
            raise failure(manifest, f"what {key} builds has no {', '.join(lacking)}", REPORT)
        self._unbuilt.pop(key, None)
        return built

    def seal(self) -> None:
        """End of set-up. Raises PluginError if something selected was never built.

        A selected part works or the engine refuses to start; it is not left aside.
        """
        for key, field in self._unbuilt.items():
            _, manifest = self._offers[key]
            raise failure(
                manifest,
                f"{key}, selected by {field}, has no use in this engine",
                f"remove {key.partition(':')[2]!r} from {field}",
            )
        self._sealed = True

    def owner(self, key: str) -> tuple[str, str]:
        """(plugin, version) behind the loaded offer ``role:name``."""
        _, manifest = self._offers[key]
        return manifest.name, manifest.version

    def _check_tables(self) -> None:
        names = {manifest.name for manifest in self.manifests}
        for name in self._tables:
            if name not in names:
                message = "no plugin of this name is installed"
                raise ConfigError(f"plugins.{name}", message, remedy=nearest(name, names))

    def _check_open(self, manifest: Manifest) -> None:
        if self._sealed:
            message = "set-up is over: hooks are closed once the engine is built"
            raise failure(manifest, message, "load and build before seal()")

    def _register(self, manifest: Manifest) -> None:
        """Any error here ends the start: pluggy 1.6 leaves a failed plugin half registered."""
        module = call(manifest, "importing it", importlib.import_module, manifest.module)
        check_implementations(manifest, module)
        try:
            self._pluggy.register(module, manifest.name)
            self._pluggy.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise failure(manifest, f"its hooks do not fit: {error}", REPORT) from error

    def _implementations(self, manifest: Manifest, hook: str) -> list[Callable[[], Any]]:
        """Functions of one plugin: calling them one by one gives every result an owner."""
        caller: pluggy.HookCaller = getattr(self._pluggy.hook, hook)
        return [
            implementation.function
            for implementation in caller.get_hookimpls()
            if implementation.plugin_name == manifest.name
        ]

    def _read_options(self, manifest: Manifest) -> None:
        kind = options_type(manifest, partial(self._implementations, manifest))
        table = self._tables.get(manifest.name, {})
        self._options[manifest.name] = read_options(manifest, kind, table)

    def _collect(self, manifest: Manifest) -> None:
        offers = collect_offers(manifest, partial(self._implementations, manifest))
        for key, offer in offers.items():
            if key in self._offers:
                other = " ".join(self.owner(key))
                raise failure(manifest, f"{key} is offered by {other} too", "uninstall one")
            self._offers[key] = (offer, manifest)
