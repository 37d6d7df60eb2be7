"""An EngineConfig as TOML that reads back as the same configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rtp_core.config.rules import settings_of
from rtp_core.config.schema import SECTIONS, EngineConfig


def to_toml(config: EngineConfig) -> str:
    """Every setting, defaults included; a setting that is None is left out."""
    blocks = [
        _table(name, {key: getattr(getattr(config, name), key) for key in settings_of(kind)})
        for name, kind in SECTIONS.items()
    ]
    blocks += [
        _table(f"plugins.{json.dumps(name)}", table) for name, table in config.plugins.items()
    ]
    return "\n".join(blocks)


def _table(name: str, values: Mapping[str, Any]) -> str:
    return "\n".join([f"[{name}]", *_lines(values)]) + "\n"


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if value is not None:
            yield f"{_key(key)} = {value_text(value)}"


def _key(key: str) -> str:
    plain = key.replace("_", "").replace("-", "")
    return key if plain.isascii() and plain.isalnum() else _string(key)


def value_text(value: Any) -> str:
    """One value as TOML writes it."""
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {value_text(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if hasattr(value, "isoformat") else repr(value)


def _string(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but DEL must be escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
