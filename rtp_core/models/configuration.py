"""A Hugging Face config.json, read with checks that name the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from rtp_core.errors import ModelError

MOST = 2**31
"""No count of a configuration is larger; damaged files ask for absurd ones."""
_INFINITE = 1e300
"""More than any configuration means, and what a float still holds."""


def refuse(key: str, found: Any, expected: str) -> NoReturn:
    """Raise the ModelError of a value that cannot be honoured."""
    raise ModelError(f"config.json: {key} is {found!r}, expected {expected}")


@dataclass(frozen=True, slots=True)
class Configuration:
    """`values` of the file over the defaults of its family, and how the model will run.

    A key that is there with null is not replaced by the default: null means "none".
    """

    values: Mapping[str, Any]
    dtype: str
    fingerprint: str

    def over(self, values: Mapping[str, Any]) -> Configuration:
        """With other values for some keys."""
        return replace(self, values={**self.values, **values})

    def get(self, key: str) -> Any:
        """The value as it is; None if the key is missing."""
        return self.values.get(key)

    def count(self, key: str, default: int | None = None, most: int = MOST) -> int:
        """A whole number from 1 to `most`."""
        return count(self.values, key, default, most)

    def index(self, key: str, default: int) -> int:
        """A whole number from 0 up."""
        return count(self.values, key, default, least=0)

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above zero."""
        return positive(self.values, key, default)

    def limit(self, key: str) -> float | None:
        """A number above zero, or None where there is no limit."""
        return None if self.values.get(key) is None else self.positive(key)

    def flag(self, key: str) -> bool:
        """A boolean, false when missing."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            refuse(key, value, "true or false")
        return bool(value)

    def items(self, key: str) -> Sequence[Any] | None:
        """A list; None if the key is missing."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, list):
            refuse(key, value, "a list")
        return value

    def per_layer(self, key: str, num_layers: int) -> Sequence[Any] | None:
        """A list with one entry a layer; None if the key is missing."""
        value = self.items(key)
        if value is not None and len(value) != num_layers:
            refuse(key, f"a list of {len(value)}", f"{num_layers} entries, one a hidden layer")
        return value

    def must_be_off(self, key: str) -> None:
        """Refuse a feature that the family's code here does not have."""
        if self.values.get(key):
            refuse(key, self.values[key], "null or false: it is not supported")


def count(
    values: Mapping[str, Any], key: str, default: int | None, most: int = MOST, least: int = 1
) -> int:
    """A whole number from `least` to `most` out of a part of the configuration."""
    value: Any = values.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        refuse(key, value, f"a whole number from {least} to {most}")
    return value


def positive(values: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A finite number above zero out of a part of the configuration."""
    value: Any = values.get(key)
    value = default if value is None else value
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not 0 < value < _INFINITE:
        refuse(key, value, "a number above 0")
    return float(value)


def section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object of the configuration without its null entries; empty if it is missing."""
    value = values.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        refuse(key, value, "an object")
    return {name: entry for name, entry in value.items() if entry is not None}
