"""Prefixes in whole blocks: equal ones are one object.

Finding a cached prefix is then a look-up by identity, exact whatever the hashes do: tokens
are compared block by block from a root that holds tenant and salt, as in a radix tree. The
128-bit key that names a prefix outside this process is computed when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import ref

from rtp_core.api import MediaSpan
from rtp_core.kv.block_hash import BlockHasher, media_in_block


class Prefix:
    """`parent` and one more block of `token_ids`; a root has neither. Compared by identity."""

    __slots__ = ("__weakref__", "_hasher", "_key", "media", "parent", "token_ids")

    def __init__(
        self,
        hasher: BlockHasher,
        parent: Prefix | None,
        token_ids: tuple[int, ...] = (),
        media: str = "",
        key: bytes | None = None,
    ) -> None:
        self._hasher = hasher
        self.parent = parent
        self.token_ids = token_ids
        self.media = media
        self._key = key

    @property
    def key(self) -> bytes:
        """The keyed hash that tiers, peers and routers know this prefix by."""
        unnamed: list[Prefix] = []
        node = self
        while node._key is None and node.parent is not None:
            unnamed.append(node)
            node = node.parent
        key = node._key or b""  # roots are born with a key
        for node in reversed(unnamed):
            key = node._key = self._hasher.key(key, node.token_ids, node.media)
        return key


class _Known(ref[Prefix]):
    """A weak reference that remembers under which name it is kept."""

    __slots__ = ("name",)
    name: tuple[object, ...]


class PrefixTree:
    """Knows every prefix in use. One lives while a sequence, block or longer prefix holds it."""

    def __init__(self, hasher: BlockHasher) -> None:
        self._hasher = hasher
        self._known: dict[tuple[object, ...], _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def root(self, tenant: str, cache_salt: str, fingerprint: str) -> Prefix:
        """The empty prefix of one tenant, salt and model; no other root shares a block."""
        name = (tenant, cache_salt, fingerprint)
        return self._find(name) or self._keep(
            name, Prefix(self._hasher, None, key=self._hasher.root(*name))
        )

    def extend(
        self,
        chain: list[Prefix],
        root: Prefix,
        token_ids: Sequence[int],
        media: Sequence[MediaSpan] = (),
    ) -> None:
        """Append to `chain` the prefixes of `token_ids`' full blocks that it lacks."""
        size = self._hasher.block_size
        parent = chain[-1] if chain else root
        for begin in range(len(chain) * size, len(token_ids) - size + 1, size):
            tokens = tuple(token_ids[begin : begin + size])
            spans = media_in_block(media, begin, begin + size) if media else ""
            name = (parent, tokens, spans)
            parent = self._find(name) or self._keep(
                name, Prefix(self._hasher, parent, tokens, spans)
            )
            chain.append(parent)

    def _find(self, name: tuple[object, ...]) -> Prefix | None:
        known = self._known.get(name)
        return None if known is None else known()

    def _keep(self, name: tuple[object, ...], prefix: Prefix) -> Prefix:
        known = _Known(prefix, self._forget)
        known.name = name
        self._known[name] = known
        return prefix

    def _forget(self, known: Any) -> None:
        """The prefix behind this reference is gone (globals may be, too, at exit)."""
        if self._known.get(known.name) is known:
            del self._known[known.name]
