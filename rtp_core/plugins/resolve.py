"""From wanted offers to the plugins that must be loaded. Pure: no import, no file, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rtp_core.api import API_VERSION, Role
from rtp_core.config.rules import close_to
from rtp_core.errors import ResolutionError
from rtp_core.plugins.known import PACKAGES, package_for
from rtp_core.plugins.manifest import Manifest

_ROLES = frozenset(role.value for role in Role)


@dataclass(frozen=True, slots=True)
class Want:
    """An offer that must be there: ``role:name``, the config field that asks, and why.

    `otherwise` is wanted instead when no installed plugin offers the key.
    """

    key: str
    field: str
    reason: str
    otherwise: Want | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """`plugins` in loading order, a needed plugin before the one that needs it.

    `owners` maps every wanted or needed offer to its plugin; `needed` holds the offers that
    only plugins asked for, with the reason.
    """

    wants: tuple[Want, ...] = ()
    plugins: tuple[Manifest, ...] = ()
    owners: Mapping[str, Manifest] = field(default_factory=dict)
    needed: tuple[Want, ...] = ()

    def names(self, role: Role) -> tuple[str, ...]:
        """Names of the offers wanted for a role, in the order of use."""
        prefix = f"{role.value}:"
        return tuple(
            want.key.removeprefix(prefix) for want in self.wants if want.key.startswith(prefix)
        )


def resolve(
    wants: Iterable[Want],
    manifests: Sequence[Manifest],
    capabilities: frozenset[str],
) -> Resolution:
    """Choose plugins for `wants` and, transitively, for what those plugins need.

    `capabilities` are facts of the machine like ``device:cpu``. Raises ResolutionError
    naming plugin, version, the field that asked and the remedy.
    """
    search = _Search(manifests, capabilities)
    asked = tuple(_offered(want, manifests) for want in wants)
    for want in asked:
        search.take(want)
    search.check_conflicts()
    search.check_overlap()
    return Resolution(asked, tuple(search.plugins), dict(search.owners), tuple(search.needed))


def _offered(want: Want, manifests: Sequence[Manifest]) -> Want:
    """The want, or what stands in for it. An offer of a broken plugin counts: it is reported."""
    if want.otherwise is None or any(want.key in manifest.provides for manifest in manifests):
        return want
    return want.otherwise


class _Search:
    def __init__(self, manifests: Sequence[Manifest], capabilities: frozenset[str]) -> None:
        self._manifests = manifests
        self._capabilities = capabilities
        self._fields: dict[str, str] = {}
        self.plugins: list[Manifest] = []
        self.owners: dict[str, Manifest] = {}
        self.needed: list[Want] = []

    def take(self, want: Want) -> None:
        """Find the one plugin that offers it, and what that plugin needs."""
        if want.key in self.owners:
            return
        manifest = self._provider(want)
        _check_usable(manifest, want)
        self.owners[want.key] = manifest
        if manifest.name in self._fields:
            return
        self._fields[manifest.name] = want.field
        for need in manifest.needs:
            self._satisfy(need, manifest, want)
        self.plugins.append(manifest)

    def check_conflicts(self) -> None:
        """No selected plugin may declare another, or its offer, as a conflict."""
        for manifest in self.plugins:
            for other in self.plugins:
                clash = set(manifest.conflicts) & {other.name, *other.provides}
                if other is not manifest and clash:
                    raise ResolutionError(
                        f"plugin {manifest.label} (for {self._fields[manifest.name]}) conflicts "
                        f"with {other.label} (for {self._fields[other.name]}): "
                        f"it excludes {', '.join(sorted(clash))}",
                        remedy="ask for only one of the two in the configuration",
                    )

    def check_overlap(self) -> None:
        """Selected plugins must not offer the same thing twice, wanted or not."""
        seen: dict[str, Manifest] = {}
        for manifest in self.plugins:
            for offer in manifest.provides:
                if offer in seen:
                    raise _ambiguous(offer, self._fields[manifest.name], (seen[offer], manifest))
                seen[offer] = manifest

    def _provider(self, want: Want) -> Manifest:
        every = [manifest for manifest in self._manifests if want.key in manifest.provides]
        found = [manifest for manifest in every if manifest.broken is None] or every
        if not found:
            raise _unknown(want, self._manifests)
        if len(found) > 1:
            raise _ambiguous(want.key, want.field, found)
        return found[0]

    def _satisfy(self, need: str, manifest: Manifest, want: Want) -> None:
        by = f"{want.field}, needed by plugin {manifest.label}"
        if need.partition(":")[0] in _ROLES:
            inner = Want(need, by, f"needed by {manifest.name}")
            if need not in self.owners:
                self.take(inner)
                self.needed.append(inner)
        elif need not in self._capabilities:
            has = ", ".join(sorted(self._capabilities)) or "nothing"
            raise ResolutionError(
                f"plugin {manifest.label}, which offers {want.key} for {want.field}, needs "
                f"{need}; this machine has {has}",
                remedy=f"remove {want.key.partition(':')[2]!r} from {want.field}",
            )


def _check_usable(manifest: Manifest, want: Want) -> None:
    where = f"plugin {manifest.label}, which offers {want.key} for {want.field}"
    if manifest.broken is not None:
        raise ResolutionError(
            f"{where}, cannot be used: {manifest.broken}",
            remedy=f"repair or reinstall {manifest.distribution}",
        )
    major, minor = manifest.api_version
    host_major, host_minor = API_VERSION
    if major == host_major and minor <= host_minor:
        return
    newer = (major, minor) > API_VERSION
    raise ResolutionError(
        f"{where}, was made for API {manifest.api}; this rtp-core has API "
        f"{host_major}.{host_minor}",
        remedy="pip install --upgrade rtp-core"
        if newer
        else f"pip install --upgrade {manifest.distribution}",
    )


def _unknown(want: Want, manifests: Sequence[Manifest]) -> ResolutionError:
    role, _, name = want.key.partition(":")
    offered = sorted(
        offer.partition(":")[2]
        for manifest in manifests
        for offer in manifest.provides
        if offer.startswith(f"{role}:")
    )
    hints = (
        _suggestion(role, name, offered, manifests),
        f"installed: {', '.join(offered) or 'none'}",
        *(
            f"{one.label} is broken: {one.broken}"
            for one in manifests
            if one.broken and not one.provides
        ),
    )
    return ResolutionError(
        f"nothing provides {want.key}, wanted by {want.field}",
        remedy="; ".join(filter(None, hints)),
    )


def _suggestion(role: str, name: str, offered: Sequence[str], manifests: Sequence[Manifest]) -> str:
    """The package to install, or the nearest name, or nothing."""
    installed = {manifest.distribution for manifest in manifests}
    absent = {
        key.partition(":")[2]: package
        for key, package in PACKAGES.items()
        if key.startswith(f"{role}:") and package not in installed
    }
    near = close_to(name, (*offered, *absent))
    package = absent.get(name) or (None if near else package_for(f"{role}:{name}"))
    if package is not None and package not in installed:
        return f"pip install {package}"
    return near


def _ambiguous(offer: str, field_name: str, found: Sequence[Manifest]) -> ResolutionError:
    names = " and ".join(one.label for one in found)
    extra = [one.distribution for one in found if not one.builtin]
    return ResolutionError(
        f"{offer}, wanted by {field_name}, is offered by {names}",
        remedy=f"uninstall all but one: pip uninstall {' or '.join(extra)}",
    )
