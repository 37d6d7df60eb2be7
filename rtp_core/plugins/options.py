"""A plugin's option table as the frozen dataclass the plugin declares."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from rtp_core.config.rules import nearest
from rtp_core.config.values import Mismatch, Text, coerce
from rtp_core.errors import ConfigError, RtpError
from rtp_core.plugins.attribution import call, failure
from rtp_core.plugins.hooks import OPTIONS_HOOK, Implementations
from rtp_core.plugins.manifest import Manifest


def options_type(manifest: Manifest, implementations: Implementations) -> type | None:
    """What the plugin's options hook returns; None without one. Raises PluginError."""
    for function in implementations(OPTIONS_HOOK):
        return call(manifest, OPTIONS_HOOK, function)
    return None


def read_options(manifest: Manifest, kind: type | None, table: Mapping[str, Any]) -> Any:
    """`kind` filled from ``[plugins.<name>]``, or None for a plugin without options.

    Raises ConfigError for a wrong key or value, PluginError for a wrong `kind`.
    """
    if kind is None:
        if table:
            raise ConfigError(
                f"plugins.{manifest.name}",
                f"plugin {manifest.label} takes no options",
                remedy=f"remove {', '.join(sorted(table))}",
            )
        return None
    _check_kind(manifest, kind)
    values = {key: _value(manifest, kind, key, value) for key, value in table.items()}
    _check_complete(manifest, kind, values)
    try:
        return kind(**values)
    except RtpError:
        raise
    except Exception as error:
        raise ConfigError(
            f"plugins.{manifest.name}", f"plugin {manifest.label} refuses its options: {error}"
        ) from error


def _check_kind(manifest: Manifest, kind: Any) -> None:
    params = getattr(kind, "__dataclass_params__", None)
    if not isinstance(kind, type) or params is None or not params.frozen:
        message = f"{OPTIONS_HOOK} returned {kind!r}"
        raise failure(manifest, message, "return a frozen dataclass type")


def _value(manifest: Manifest, kind: type, key: str, value: Any) -> Any:
    """Strings are read like flags, since a flag's value has no type of its own yet."""
    field = f"plugins.{manifest.name}.{key}"
    known = {one.name for one in dataclasses.fields(kind) if one.init}
    if key not in known:
        raise ConfigError(
            field, f"plugin {manifest.label} has no such option", remedy=nearest(key, known)
        )
    annotation = _hints(manifest, kind)[key]
    try:
        return coerce(Text(value) if isinstance(value, str) else value, annotation)
    except Mismatch as mismatch:
        raise ConfigError(field, f"{value!r} is not allowed", remedy=f"give {mismatch}") from None
    except TypeError as error:
        message = f"option {key} of {kind.__name__}: {error}"
        remedy = "use bool, int, float, str, Literal, tuples of these, or None"
        raise failure(manifest, message, remedy) from error


def _hints(manifest: Manifest, kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except (NameError, AttributeError, TypeError) as error:
        message = f"the types of {kind.__name__} cannot be resolved: {error}"
        remedy = "import them at module level, outside TYPE_CHECKING"
        raise failure(manifest, message, remedy) from error


def _check_complete(manifest: Manifest, kind: type, values: Mapping[str, Any]) -> None:
    for one in dataclasses.fields(kind):
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if one.init and required and one.name not in values:
            raise ConfigError(
                f"plugins.{manifest.name}.{one.name}",
                f"plugin {manifest.label} requires this option",
                remedy=f"set it below [plugins.{manifest.name}]",
            )
