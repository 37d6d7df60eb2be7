"""Sources of settings, merged in order of precedence into one checked EngineConfig.

Keyword arguments or flags win over the environment, the environment over the file, the
file over the defaults of the schema.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtp_core.config.environment import SEPARATOR, process_environment, settings_in
from rtp_core.config.rules import clean, nearest, settings_of
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
    for given in givens:
        if given.path[0] == PLUGINS:
            name, key = _plugin_option(given)
            plugins.setdefault(name, {})[key] = given.value
        else:
            section, key = _known(given)
            sections[section][key] = clean(SECTIONS[section], key, given.value, given.source)
    built = {name: kind(**sections[name]) for name, kind in SECTIONS.items()}
    return EngineConfig(**built, plugins=plugins)  # pyright: ignore[reportArgumentType]


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
    return tuple(
        Given(path, value, _place(file, text, path)) for path, value in _leaves(tables, file)
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
        yield from (Given(path, leaf) for path, leaf in _leaves({name: value}, None))
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


def _leaves(tables: Mapping[str, Any], file: Path | None) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of each setting; tables below ``plugins`` are one level deeper."""
    for section, table in tables.items():
        if not isinstance(table, Mapping):
            where = f" in {file}" if file else ""
            raise ConfigError(
                section,
                f"{table!r} stands where a section is expected{where}",
                remedy=_where_it_belongs(section),
            )
        if section != PLUGINS:
            yield from (((section, key), value) for key, value in table.items())
        else:
            yield from _plugin_leaves(table)


def _plugin_leaves(tables: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise ConfigError(
                f"{PLUGINS}.{name}",
                f"{table!r} stands where a plugin's table is expected",
                remedy=f"write [{PLUGINS}.<name>] with the plugin's options below it",
            )
        for key, value in table.items():
            if name == BUILTIN and isinstance(value, Mapping):
                yield from (((PLUGINS, name, key, inner), leaf) for inner, leaf in value.items())
            else:
                yield (PLUGINS, name, key), value


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
    home = _home(key)
    remedy = f"did you mean '{home}.{key}'?" if home else nearest(key, keys)
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


def _by(given: Given) -> str:
    return f", given by {given.source}" if given.source else ""


def _place(file: Path, text: str, path: tuple[str, ...]) -> str:
    """``file line N``, or the file alone where the key is written inline or dotted."""
    *table, key = path
    header = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(_quoted(table)) + r"\s*\]")
    wanted = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            inside = header.match(line) is not None
        elif inside and wanted.match(line):
            return f"{file} line {number}"
    return str(file)


def _quoted(names: Iterable[str]) -> list[str]:
    return [rf"[\"']?{re.escape(name)}[\"']?" for name in names]
