"""``plugin.toml``: what a plugin says of itself, read without importing it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from rtp_core.api import ModelSpec, Role
from rtp_core.config.rules import nearest

FILE_NAME = "plugin.toml"
_NAME = re.compile(r"(core\.)?[a-z][a-z0-9_]*")
_API = re.compile(r"(\d+)\.(\d+)")
_KEYS = ("name", "api", "provides", "needs", "conflicts", "summary", "fits")
_REQUIRED = ("name", "api", "provides")


@dataclass(frozen=True, slots=True)
class Fits:
    """Models a plugin was made for; an empty tuple sets no limit.

    Only plugins that declare this are taken by ``auto``; the others must be named.
    """

    architectures: tuple[str, ...] = ()
    hidden_sizes: tuple[int, ...] = ()
    vocab_sizes: tuple[int, ...] = ()
    fingerprints: tuple[str, ...] = ()

    def mismatch(self, spec: ModelSpec) -> str | None:
        """Why the plugin does not fit the model, or None if it does."""
        for what, found, allowed in (
            ("architecture", spec.architecture, self.architectures),
            ("hidden size", spec.hidden_size, self.hidden_sizes),
            ("vocabulary", spec.vocab_size, self.vocab_sizes),
            ("fingerprint", spec.fingerprint, self.fingerprints),
        ):
            if allowed and found not in allowed:
                return f"made for {what} {', '.join(map(str, allowed))}, the model has {found}"
        return None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One installed plugin. `broken` says why it cannot be used; then the rest is partial.

    `api` is ``major.minor``; `provides` holds ``role:name``; `needs` holds capabilities
    (``device:cuda``) or offers; `conflicts` holds plugin names or offers. `module` is
    imported only when the plugin is selected; `distribution` is what pip calls it.
    """

    name: str
    version: str
    api: str
    provides: tuple[str, ...]
    needs: tuple[str, ...]
    conflicts: tuple[str, ...]
    summary: str
    module: str
    distribution: str
    fits: Fits | None = None
    broken: str | None = None

    @property
    def api_version(self) -> tuple[int, int]:
        """(major, minor)."""
        major, _, minor = self.api.partition(".")
        return int(major), int(minor)

    @property
    def builtin(self) -> bool:
        """Whether it is part of rtp-core."""
        return self.name.startswith("core.")

    @property
    def label(self) -> str:
        """Name and version, for messages."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a manifest comes from: the entry point and the distribution that holds it."""

    name: str
    module: str
    distribution: str
    version: str

    def broken(self, reason: str) -> Manifest:
        """A listing entry for a plugin whose manifest says nothing usable."""
        return Manifest(
            name=self.name,
            version=self.version,
            api="",
            provides=(),
            needs=(),
            conflicts=(),
            summary="",
            module=self.module,
            distribution=self.distribution,
            broken=reason,
        )


class _Invalid(Exception):
    """The manifest breaks a rule; the argument is the reason."""


def read_manifest(file: Path, source: Source) -> Manifest:
    """The manifest in `file`; an invalid one comes back with `broken` set."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        return source.broken(f"{file} cannot be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return source.broken(f"{file} is not TOML: {error}")
    return parse_manifest(tables, source)


def parse_manifest(tables: Mapping[str, Any], source: Source) -> Manifest:
    """Check the tables of a ``plugin.toml``. What could be read is kept when it is broken."""
    table = tables.get("plugin")
    if not isinstance(table, Mapping):
        return source.broken(f"{FILE_NAME} has no [plugin] table")
    manifest = source.broken("")
    reasons: list[str] = []
    for read in (
        partial(_read_keys, tables, table),
        partial(_read_identity, table, source),
        partial(_read_lists, table),
        partial(_read_fits, table),
    ):
        try:
            manifest = replace(manifest, **read())
        except _Invalid as invalid:
            reasons.append(str(invalid))
    return replace(manifest, broken=f"{FILE_NAME}: {'; '.join(reasons)}" if reasons else None)


def _read_keys(tables: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    for key in tables:
        if key != "plugin":
            raise _Invalid(f"unknown table [{key}], all keys belong to [plugin]")
    for key in table:
        if key not in _KEYS:
            raise _Invalid(f"unknown key {key!r} ({nearest(key, _KEYS)})")
    missing = [key for key in _REQUIRED if key not in table]
    if missing:
        raise _Invalid(f"{', '.join(missing)} is missing")
    return {}


def _read_identity(table: Mapping[str, Any], source: Source) -> dict[str, Any]:
    name, api = table.get("name", source.name), table.get("api", "")
    summary = table.get("summary", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _Invalid(f"name {name!r} is not lower-case letters, digits and underscores")
    if name != source.name:
        raise _Invalid(f"name {name!r} differs from the entry point's, {source.name!r}")
    if not isinstance(summary, str):
        raise _Invalid(f"summary {summary!r} is not a string")
    if "api" in table and not (isinstance(api, str) and _API.fullmatch(api)):
        raise _Invalid(f'api {api!r} is not a version like "1.0"')
    return {"name": name, "api": api, "summary": summary}


def _read_lists(table: Mapping[str, Any]) -> dict[str, Any]:
    provides = _strings(table, "provides")
    for offer in provides:
        _check_offer(offer)
    if len(set(provides)) != len(provides):
        raise _Invalid("provides names an offer twice")
    needs, conflicts = _strings(table, "needs"), _strings(table, "conflicts")
    for need in needs:
        if not all(need.partition(":")):
            raise _Invalid(f"needs {need!r} is not kind:name, like device:cuda")
    return {"provides": provides, "needs": needs, "conflicts": conflicts}


def _check_offer(offer: str) -> None:
    role, _, name = offer.partition(":")
    roles = [known.value for known in Role]
    if role not in roles:
        raise _Invalid(f"provides {offer!r} has an unknown role ({nearest(role, roles)})")
    if not name or name != name.strip():
        raise _Invalid(f"provides {offer!r} is not role:name")


def _read_fits(table: Mapping[str, Any]) -> dict[str, Any]:
    fits = table.get("fits")
    if fits is None:
        return {}
    if not isinstance(fits, Mapping):
        raise _Invalid(f"fits {fits!r} is not a table")
    kinds = {field.name: int if "sizes" in field.name else str for field in fields(Fits)}
    for key, values in fits.items():
        if key not in kinds:
            raise _Invalid(f"unknown key fits.{key} ({nearest(key, kinds)})")
        if not isinstance(values, list) or not all(type(item) is kinds[key] for item in values):
            raise _Invalid(f"fits.{key} is not a list of {kinds[key].__name__}")
    return {"fits": Fits(**{key: tuple(values) for key, values in fits.items()})}


def _strings(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _Invalid(f"{key} is not a list of strings")
    return tuple(values)
