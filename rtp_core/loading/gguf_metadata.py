"""Typed access to GGUF metadata: an error names the file and the key."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from rtp_core.errors import ModelError
from rtp_core.loading.gguf import GGUFFile, GGUFTensor

_MISSING = object()
_MOST, _MOST_LAYERS, _MOST_EXPERTS = 2**31, 4096, 2**16
"""No model has more; damaged files ask for absurd counts."""


class Metadata:
    """Keys of one architecture, and the tensor directory where it stands for a key.

    Raises ModelError for files that are no model, or only a part of one.
    """

    def __init__(self, file: GGUFFile) -> None:
        self.path: Path = file.path
        self.tensors = {tensor.name: tensor for tensor in file.tensors}
        self._values = file.metadata
        kind = self._values.get("general.architecture")
        if not isinstance(kind, str):
            raise ModelError(
                f"{file.path}: GGUF metadata general.architecture is {kind!r:.80}, expected a name"
            )
        self.architecture = kind
        parts = self._values.get("split.count", 1)
        if parts not in (0, 1):
            raise ModelError(
                f"{file.path} is one of {parts} parts", remedy="merge them with gguf-split --merge"
            )
        purpose = self._values.get("general.type", "model")
        if purpose != "model":
            raise ModelError(
                f"{file.path}: GGUF metadata general.type is {purpose!r:.80}, expected 'model'"
            )

    def full(self, key: str) -> str:
        """The key as the file has it."""
        return f"{self.architecture}.{key}"

    def names(self) -> Iterable[str]:
        """The architecture's keys that the file holds, without its name."""
        prefix = self.full("")
        return (key.removeprefix(prefix) for key in self._values if key.startswith(prefix))

    def get(self, key: str, default: Any) -> Any:
        """The architecture's value of `key`, whatever it is."""
        return self._values.get(self.full(key), default)

    def count(self, key: str, default: int | None = None, most: int = _MOST) -> int:
        """A positive whole number up to `most`."""
        value = self._need(key, default)
        if not _whole(value) or not 1 <= value <= most:
            self.refuse(key, value, f"a positive whole number up to {most}")
        return value

    def layers(self) -> int:
        """``block_count``."""
        return self.count("block_count", most=_MOST_LAYERS)

    def experts(self) -> int:
        """``expert_count``, for architectures whose feed-forward part is made of them."""
        return self.count("expert_count", most=_MOST_EXPERTS)

    def number(self, key: str, default: float | None = None) -> float:
        """A positive, finite number."""
        value = self._need(key, default)
        if not (_whole(value) or isinstance(value, float)) or not 0 < value < math.inf:
            self.refuse(key, value, "a positive number")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self._need(key, default)
        if not isinstance(value, bool):
            self.refuse(key, value, "true or false")
        return value

    def window(self, default: int | None = None) -> int | None:
        """``attention.sliding_window``; None where it is 0, or `default` where it is missing."""
        key = "attention.sliding_window"
        value = self.get(key, default)
        return None if value is None or value == 0 else self.count(key, default)

    def head_size(self) -> int:
        """Of queries, keys and values alike."""
        heads, hidden = self.count("attention.head_count"), self.count("embedding_length")
        if self.get("attention.key_length", None) is None and hidden % heads:
            self.refuse("attention.head_count", heads, f"a divisor of embedding_length {hidden}")
        size = self.count("attention.key_length", hidden // heads)
        values = self.count("attention.value_length", size)
        if values != size:
            self.refuse("attention.value_length", values, f"attention.key_length {size}")
        return size

    def token_id(self, which: str, most: int) -> int | None:
        """The id of a special token ("bos", "eos" …) below `most`, if it is declared."""
        key = f"tokenizer.ggml.{which}_token_id"
        value = self._values.get(key)
        if value is None or (_whole(value) and 0 <= value < most):
            return value
        raise ModelError(
            f"{self.path}: GGUF metadata {key} is {value!r:.80}, expected an id below {most}"
        )

    def items(self, key: str) -> list[Any]:
        """A list, by its full key; empty if it is missing."""
        value = self._values.get(key, [])
        if isinstance(value, list):
            return value
        raise ModelError(f"{self.path}: GGUF metadata {key} is {value!r:.80}, expected a list")

    def tensor(self, name: str) -> GGUFTensor:
        """Raises ModelError if it is missing."""
        if name not in self.tensors:
            raise ModelError(f"{self.path}: GGUF tensor {name} is missing")
        return self.tensors[name]

    def refuse(self, key: str, found: Any, expected: str) -> NoReturn:
        """Raise the ModelError of a value that cannot be honoured."""
        raise ModelError(
            f"{self.path}: GGUF metadata {self.full(key)} is {found!r:.80}, expected {expected}"
        )

    def _need(self, key: str, default: Any) -> Any:
        value = self.get(key, _MISSING if default is None else default)
        if value is _MISSING:
            raise ModelError(f"{self.path}: GGUF metadata lacks {self.full(key)}")
        return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
