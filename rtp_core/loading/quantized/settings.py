"""`quantization_config`, read with checks that name the key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from rtp_core.errors import ModelError

SECTION = "quantization_config"
_LARGEST_GROUP = 2**20


def refuse(key: str, found: Any, expected: str, remedy: str | None = None) -> NoReturn:
    """Raise the ModelError of a value that cannot be honoured."""
    where = f"{SECTION}.{key}" if key else SECTION
    raise ModelError(
        f"config.json: {where} is {found!r:.80}, expected {expected}",
        remedy=remedy or "take the unquantized checkpoint, or one quantized otherwise",
    )


def choice(values: Mapping[str, Any], key: str, allowed: Collection[Any], default: Any) -> Any:
    """One of `allowed`; true is not 1."""
    value = values.get(key)
    value = default if value is None else value
    if not any(value == one and type(value) is type(one) for one in allowed):
        refuse(key, value, " or ".join(str(one) for one in allowed))
    return value


def flag(values: Mapping[str, Any], key: str, default: bool) -> bool:
    """A boolean."""
    return choice(values, key, (True, False), default)


def group_size(values: Mapping[str, Any], key: str = "group_size") -> int | None:
    """Inputs that share a scale; None where the file says -1, all of a row."""
    value = values.get(key)
    if value == -1 and not isinstance(value, bool):
        return None
    return natural(value, key)


def natural(value: Any, key: str) -> int:
    """A whole number above zero."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST_GROUP:
        refuse(key, value, f"a whole number from 1 to {_LARGEST_GROUP}")
    return value


def texts(values: Mapping[str, Any], *keys: str) -> Sequence[str]:
    """The list of strings under the first of `keys` that is there; empty without one."""
    for key in keys:
        value = values.get(key)
        if value is not None:
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                refuse(key, value, "a list of strings")
            return value
    return ()


def section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object; empty if it is missing."""
    value = values.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        refuse(key, value, "an object")
    return value


def check_excluded(module: str, names: Sequence[str], key: str) -> None:
    """Refuse a quantized module that the configuration calls unquantized.

    A name stands for modules of which it is whole parts: ``mlp.gate`` is not ``mlp.gate_proj``.
    """
    for name in names:
        if f".{name.removesuffix('.weight')}." in f".{module}.":
            raise ModelError(
                f"config.json: {SECTION}.{key} names {name!r}, but {module} is quantized",
                remedy="config.json belongs to another checkpoint",
            )
