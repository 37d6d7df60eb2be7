"""Which published block holds which tokens: key -> variants, every hit verified."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from rtp_core.api import KVFormatId, KVQuality

_HIGH = frozenset({KVFormatId.DENSE, KVFormatId.INT8_TOKEN, KVFormatId.FP8_TOKEN})


@dataclass(frozen=True, slots=True)
class Published:
    """A block others may read. `lineage` is the least precise format it was computed on.

    `parent` is the key before it (the tenant's root for the first block).
    """

    block: int
    key: bytes
    parent: bytes
    token_ids: tuple[int, ...]
    tenant: str
    format_id: KVFormatId = KVFormatId.DENSE
    lineage: KVFormatId = KVFormatId.DENSE

    def satisfies(self, quality: KVQuality) -> bool:
        """Whether a request of this quality may read the block."""
        if quality is KVQuality.ANY:
            return True
        formats = {self.format_id, self.lineage}
        if quality is KVQuality.EXACT:
            return formats == {KVFormatId.DENSE}
        return formats <= _HIGH


class PrefixIndex:
    """Keys may collide by accident or intent; parent and tokens decide."""

    def __init__(self) -> None:
        self._variants: dict[bytes, list[Published]] = {}
        self._children: defaultdict[bytes, int] = defaultdict(int)

    def __len__(self) -> int:
        return sum(len(variants) for variants in self._variants.values())

    def find(
        self, key: bytes, parent: bytes, token_ids: tuple[int, ...], tenant: str, quality: KVQuality
    ) -> Published | None:
        """The published block with this content that the request may read."""
        for found in self._variants.get(key, ()):
            same = found.parent == parent and found.token_ids == token_ids
            if same and found.tenant == tenant and found.satisfies(quality):
                return found
        return None

    def add(self, entry: Published) -> None:
        """Publish; the caller made sure that no equal entry exists."""
        self._variants.setdefault(entry.key, []).append(entry)
        self._children[entry.parent] += 1

    def remove(self, entry: Published) -> None:
        """Withdraw a published block."""
        variants = self._variants[entry.key]
        variants.remove(entry)
        if not variants:
            del self._variants[entry.key]
        self._children[entry.parent] -= 1
        if not self._children[entry.parent]:
            del self._children[entry.parent]

    def has_children(self, entry: Published) -> bool:
        """Whether a published block continues this one."""
        return entry.key in self._children
