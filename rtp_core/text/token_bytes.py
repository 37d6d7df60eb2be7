"""The bytes behind a token's text, for the two families of vocabularies that spell bytes.

Byte-level BPE (GPT-2) writes each byte as one printable character. SentencePiece-style
vocabularies write a space as U+2581 and a byte that no piece covers as ``<0xAB>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PIECE_STEPS = {"Replace", "ByteFallback", "Fuse", "Strip"}


@dataclass(frozen=True, slots=True)
class ByteRule:
    """How a token's text becomes bytes. `strips_start`: the first space of a text is dropped."""

    byte_level: bool
    byte_fallback: bool = False
    strips_start: bool = False

    def to_bytes(self, text: str) -> bytes:
        """Bytes of one token; special tokens give their own text in UTF-8."""
        if self.byte_level:
            return _from_byte_level(text)
        if self.byte_fallback and (match := _BYTE.fullmatch(text)):
            return bytes((int(match[1], 16),))
        return text.replace(_SPACE, " ").encode()


def byte_rule(decoder: Any) -> ByteRule | None:
    """The rule of a tokenizer's decoder; None when it does not decode token by token."""
    if decoder is None:
        return None
    steps = list(_steps(json.loads(decoder.__getstate__())))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return ByteRule(byte_level=True)
    if not set(kinds) <= _PIECE_STEPS or not any(map(_replaces_space, steps)):
        return None
    strips = [step for step in steps if step["type"] == "Strip"]
    if not all(_strips_one_space(step) for step in strips):
        return None
    return ByteRule(
        byte_level=False, byte_fallback="ByteFallback" in kinds, strips_start=bool(strips)
    )


def _steps(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if state["type"] != "Sequence":
        return [state]
    return [step for inner in state["decoders"] for step in _steps(inner)]


def _replaces_space(step: Mapping[str, Any]) -> bool:
    return (
        step["type"] == "Replace"
        and step.get("pattern") == {"String": _SPACE}
        and step.get("content") == " "
    )


def _strips_one_space(step: Mapping[str, Any]) -> bool:
    return (step.get("content"), step.get("start"), step.get("stop")) == (" ", 1, 0)


def _from_byte_level(text: str) -> bytes:
    """As the library's decoder: text with any other character is taken as it is."""
    table = _byte_of_char()
    try:
        return bytes([table[char] for char in text])
    except KeyError:
        return text.encode()


@cache
def _byte_of_char() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for U+0100 and up."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + number): byte for number, byte in enumerate(others)})
    return table
