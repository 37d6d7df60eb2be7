"""The settings that were given, each with its origin: what `rtp explain` tells of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import Any

from rtp_core.config.rules import settings_of
from rtp_core.config.schema import SECTIONS, EngineConfig

HIDDEN = "(hidden)"
_SECRET = re.compile(r"(key|token|secret|password)s?$", re.IGNORECASE)


def given_settings(config: EngineConfig, plugins_in_use: Set[str]) -> list[dict[str, Any]]:
    """``key``, ``value``, ``default``, ``origin`` and ``note`` of each setting that was given or
    is not its default.

    The note says that nothing reads it: its plugin is not in use. Keys and passwords are hidden.
    """
    return [*_of_sections(config), *_of_plugins(config, plugins_in_use)]


def _of_sections(config: EngineConfig) -> Iterator[dict[str, Any]]:
    for section, kind in SECTIONS.items():
        for key, setting in settings_of(kind).items():
            name, value = f"{section}.{key}", getattr(getattr(config, section), key)
            if name in config.origins or value != setting.default:
                hidden = setting.rule.secret and value
                yield {
                    "key": name,
                    "value": HIDDEN if hidden else value,
                    "default": setting.default,
                    "origin": config.origins.get(name),
                    "note": None,
                }


def _of_plugins(config: EngineConfig, in_use: Set[str]) -> Iterator[dict[str, Any]]:
    for plugin, table in config.plugins.items():
        for key, value in table.items():
            name = f"plugins.{plugin}.{key}"
            yield {
                "key": name,
                "value": HIDDEN if _SECRET.search(key) else value,
                "default": None,
                "origin": config.origins.get(name),
                "note": None if plugin in in_use else "not read: the plugin is not in use",
            }
