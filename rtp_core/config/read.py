"""Sources of settings, merged in order of precedence into one checked EngineConfig.

Keyword arguments or flags win over the environment, the environment over the file, the
file over the defaults of the schema.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtp_core.config.environment import SEPARATOR, process_environment, settings_in
from rtp_core.config.places import places
from rtp_core.config.rules import clean, close_to, nearest, settings_of
from rtp_core.config.schema import SECTIONS, EngineConfig
from rtp_core.config.values import Text
from rtp_core.errors import ConfigError

PLUGINS = "plugins"
BUILTIN = "core"
"""First part of the names of built-in plugins, which hold a dot: ``core.speculation``."""


@dataclass(frozen=True, slots=True)
class Given:
    """One value from one source. `path` is (section, key) or ("plugins", name…, key).

    `source` says where it stands, for messages; empty for Python keyword arguments.
    """

    path: tuple[str, ...]
    value: Any
    source: str = ""


def load_config(
    *,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> EngineConfig:
    """Settings from `overrides`, then `environ` (default: the process's), then `file`.

    `overrides` maps section names to mappings, or keys of ``[model]`` to values; ``model``
    may also be the path itself. Raises ConfigError naming the dotted key.
    """
    variables = process_environment() if environ is None else environ
    return build_config(
        (
            *(() if file is None else from_file(file)),
            *from_environment(variables),
            *from_overrides(overrides or {}),
        )
    )


def build_config(givens: Iterable[Given]) -> EngineConfig:
    """Later values replace earlier ones; all of them must be valid."""
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    plugins: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    for given in givens:
        if given.source:
            origins[".".join(given.path)] = given.source
        if given.path[0] == PLUGINS:
            name, key = _plugin_option(given)
            plugins.setdefault(name, {})[key] = given.value
        else:
            section, key = _known(given)
            sections[section][key] = clean(SECTIONS[section], key, given.value, given.source)
    built = {name: kind(**sections[name]) for name, kind in SECTIONS.items()}
    return EngineConfig(**built, plugins=plugins, origins=origins)  # pyright: ignore[reportArgumentType]


def from_file(file: Path) -> tuple[Given, ...]:
    """Every value of a TOML file. Raises ConfigError naming file and line."""
    import tomllib

    try:
        text = file.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            str(file), f"cannot be read: {error.strerror}", remedy="check the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"is not TOML: {error}") from error
    lines = places(text)
    where = {path: f"{file} line {number}" for path, number in lines.items()}
    return tuple(
        Given(path, value, where.get(path, str(file))) for path, value in _leaves(tables, where)
    )


def from_environment(environ: Mapping[str, str]) -> tuple[Given, ...]:
    """Every variable spelled ``RTP_SECTION__KEY``."""
    return tuple(
        Given(path, Text(value), name) for path, (name, value) in settings_in(environ).items()
    )


def from_overrides(overrides: Mapping[str, Any]) -> tuple[Given, ...]:
    """Keyword arguments of LLM: sections, or keys of ``[model]``."""
    return tuple(given for name, value in overrides.items() for given in _override(name, value))


def _override(name: str, value: Any) -> Iterator[Given]:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if name == "model" and isinstance(value, str):
        yield Given(("model", "path"), value)
    elif name in SECTIONS or name == PLUGINS:
        yield from (Given(path, leaf) for path, leaf in _leaves({name: value}, {}))
    elif name in settings_of(SECTIONS["model"]):
        yield Given(("model", name), value)
    else:
        raise _unknown_override(name)


def _unknown_override(name: str) -> ConfigError:
    if home := _home(name):
        remedy = f"pass {home}={{{name!r}: …}}"
        return ConfigError(name, f"is a key of section {home}", remedy=remedy)
    known = (*SECTIONS, PLUGINS, *settings_of(SECTIONS["model"]))
    return ConfigError(name, "is no section and no key of [model]", remedy=nearest(name, known))


def _leaves(
    tables: Mapping[str, Any], where: Mapping[tuple[str, ...], str]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of each setting; tables below ``plugins`` are one level deeper.

    `where` says where each path stands, for the message about one that is no table.
    """
    for section, table in tables.items():
        if not isinstance(table, Mapping):
            raise ConfigError(
                section,
                f"{table!r} stands where a section is expected{_at(where, section)}",
                remedy=_where_it_belongs(section),
            )
        if section != PLUGINS:
            yield from (((section, key), value) for key, value in table.items())
        else:
            yield from _plugin_leaves(table, where)


def _plugin_leaves(
    tables: Mapping[str, Any], where: Mapping[tuple[str, ...], str]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            at = _at(where, PLUGINS, name)
            raise ConfigError(
                f"{PLUGINS}.{name}",
                f"{table!r} stands where a plugin's table is expected{at}",
                remedy=f"write [{PLUGINS}.<name>] with the plugin's options below it",
            )
        for key, value in table.items():
            if name == BUILTIN and isinstance(value, Mapping):
                yield from (((PLUGINS, name, key, inner), leaf) for inner, leaf in value.items())
            else:
                yield (PLUGINS, name, key), value


def _at(where: Mapping[tuple[str, ...], str], *path: str) -> str:
    return f", given by {where[path]}" if path in where else ""


def _plugin_option(given: Given) -> tuple[str, str]:
    _, *name, key = given.path
    if not name:
        raise ConfigError(
            ".".join(given.path),
            f"names no option{_by(given)}",
            remedy=f"{PLUGINS}.<name>.<key>, in the environment RTP_PLUGINS__<NAME>__<KEY>",
        )
    return ".".join(name), key


def _known(given: Given) -> tuple[str, str]:
    section, key = given.path[0], SEPARATOR.join(given.path[1:])
    if section not in SECTIONS:
        raise ConfigError(
            section, f"is no section{_by(given)}", remedy=nearest(section, (*SECTIONS, PLUGINS))
        )
    keys = settings_of(SECTIONS[section])
    if key in keys:
        return section, key
    remedy = _meant(key) or close_to(key, keys) or _by_flag(key) or nearest(key, keys)
    raise ConfigError(f"{section}.{key}", f"is no setting{_by(given)}", remedy=remedy)


def _where_it_belongs(name: str) -> str:
    if name in SECTIONS or name == PLUGINS:
        return f"write [{name}] with keys below it"
    if home := _home(name):
        return f"write it below [{home}]"
    return nearest(name, (*SECTIONS, PLUGINS))


def _home(key: str) -> str | None:
    """The first section that has this key."""
    return next((name for name, kind in SECTIONS.items() if key in settings_of(kind)), None)


def _meant(key: str) -> str:
    home = _home(key)
    return f"did you mean '{home}.{key}'?" if home else ""


def _by_flag(key: str) -> str:
    """The setting whose flag has this name, as files of other engines are written."""
    flag = f"--{key.replace('_', '-')}"
    flags = {
        setting.rule.flag: f"{section}.{setting.key}"
        for section, kind in SECTIONS.items()
        for setting in settings_of(kind).values()
    }
    meant = {**flags, "--gpu-memory-utilization": "kv.memory"}.get(flag)
    return f"did you mean {meant!r}?" if meant else ""


def _by(given: Given) -> str:
    return f", given by {given.source}" if given.source else ""
