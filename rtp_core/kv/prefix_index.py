"""Which published blocks hold a prefix: one or more variants, by format and lineage."""

from __future__ import annotations

from typing import NamedTuple

from rtp_core.api import KVFormatId, KVQuality
from rtp_core.kv.prefix import Prefix

_ACCEPTED: dict[KVQuality, frozenset[KVFormatId]] = {
    KVQuality.EXACT: frozenset({KVFormatId.DENSE}),
    KVQuality.HIGH: frozenset({KVFormatId.DENSE, KVFormatId.INT8_TOKEN, KVFormatId.FP8_TOKEN}),
    KVQuality.ANY: frozenset(KVFormatId),
}


class Published(NamedTuple):
    """The last block of a prefix, for others to read.

    `lineage` is the least precise format the block was computed on.
    """

    block: int
    prefix: Prefix
    format_id: KVFormatId = KVFormatId.DENSE
    lineage: KVFormatId = KVFormatId.DENSE

    def satisfies(self, quality: KVQuality) -> bool:
        """Whether a request of this quality may read the block."""
        accepted = _ACCEPTED[quality]
        return self.format_id in accepted and self.lineage in accepted


class PrefixIndex:
    """prefix -> variants, and how many published prefixes continue one by a block."""

    def __init__(self) -> None:
        self._variants: dict[Prefix, tuple[Published, ...]] = {}
        self._children: dict[Prefix | None, int] = {}

    def __len__(self) -> int:
        return sum(len(variants) for variants in self._variants.values())

    def variants(self, prefix: Prefix) -> tuple[Published, ...]:
        """All published blocks of a prefix."""
        return self._variants.get(prefix, ())

    def find(self, prefix: Prefix, quality: KVQuality) -> Published | None:
        """A published block of this prefix that the request may read."""
        for found in self._variants.get(prefix, ()):
            if found.satisfies(quality):
                return found
        return None

    def add(self, entry: Published) -> None:
        """Publish; the caller made sure that no equal entry exists."""
        prefix = entry.prefix
        self._variants[prefix] = (*self._variants.get(prefix, ()), entry)
        self._children[prefix.parent] = self._children.get(prefix.parent, 0) + 1

    def remove(self, entry: Published) -> None:
        """Withdraw a published block."""
        prefix = entry.prefix
        left = tuple(one for one in self._variants.pop(prefix) if one is not entry)
        if left:
            self._variants[prefix] = left
        children = self._children.pop(prefix.parent) - 1
        if children:
            self._children[prefix.parent] = children

    def has_children(self, prefix: Prefix) -> bool:
        """Whether a published block continues this prefix."""
        return prefix in self._children
