"""What every KVTier must keep: a tier that fails is a miss, never an error."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from rtp_core.api import KVQuality, KVTier, TierBlock
from rtp_core.testing.conformance.shape import has_members
from rtp_core.testing.conformance.verdict import Check, Make, NotConformingError, require, show
from rtp_core.testing.contexts import build_context

DEADLINE_S = 20.0
_KEYS = tuple(bytes([number]) * 16 for number in range(1, 7))
_BLOBS = tuple(bytes([number, 255 - number]) * 512 for number in range(1, 7))
_UNKNOWN = b"\xee" * 16


def unknown_keys_are_misses(make: Make) -> None:
    """`lookup` counts leading keys held, which is none at first."""
    tier = _tier(make)
    for keys in ((), (_UNKNOWN,), _KEYS):
        count = tier.lookup(keys, KVQuality.ANY)
        require(
            count == 0,
            f"an empty tier holds 0 of {len(keys)} keys",
            f"lookup() returned {count!r}",
            "start empty, or check a found file's key before you count it",
        )


def loading_unknown_keys_resolves_to_misses(make: Make) -> None:
    """The future resolves to one TierBlock a key, with ok False."""
    tier = _tier(make)
    buffers = [bytearray(1024) for _ in _KEYS]
    blocks = _resolve(tier.load(_KEYS, [memoryview(one) for one in buffers]), "load()")
    require(
        len(blocks) == len(_KEYS) and not any(block.ok for block in blocks),
        f"load() of unknown keys resolves to {len(_KEYS)} blocks that are not ok",
        show(blocks),
        "return TierBlock(ok=False) for a key that is not held",
    )


def stored_blocks_come_back(make: Make) -> None:
    """What `store` kept is found and loaded byte for byte."""
    tier = _tier(make)
    kept = _store_all(tier)
    found = tier.lookup(_KEYS, KVQuality.ANY)
    require(
        found >= min(kept, 1) and found <= len(_KEYS),
        f"lookup() finds leading keys after store() kept {kept} of {len(_KEYS)}",
        f"it returned {found}",
        "make a block visible to lookup() before store()'s future resolves",
    )
    for place in range(found):
        content = _load_one(tier, _KEYS[place], len(_BLOBS[place]))
        require(
            content == _BLOBS[place],
            f"load() fills the buffer with the bytes stored under key {place}",
            "not ok" if content is None else f"other bytes: {show(content)}",
            "copy the blob before store() returns or resolves; never share a buffer",
        )


def lookup_counts_leading_keys_only(make: Make) -> None:
    """A prefix is useful up to its first gap."""
    tier = _tier(make)
    _store_all(tier)
    for keys in ((_UNKNOWN, *_KEYS), (_KEYS[0], _UNKNOWN, *_KEYS[1:])):
        count = tier.lookup(keys, KVQuality.ANY)
        gap = keys.index(_UNKNOWN)
        require(
            count <= gap,
            f"at most {gap} leading keys are held: the next one is unknown",
            f"lookup() returned {count}",
            "stop counting at the first key that is not held",
        )


def a_batch_may_hit_and_miss(make: Make) -> None:
    """Each block of a load succeeds or fails by itself."""
    tier = _tier(make)
    if not _store_all(tier):
        return
    buffers = [bytearray(1024), bytearray(1024)]
    blocks = _resolve(
        tier.load((_UNKNOWN, _KEYS[0]), [memoryview(one) for one in buffers]), "load()"
    )
    require(
        not blocks[0].ok and blocks[1].ok and bytes(buffers[1]) == _BLOBS[0],
        "of an unknown and a stored key, the second is loaded",
        show(blocks),
        "decide for each key; do not give up a whole batch",
    )


def a_buffer_of_wrong_size_is_a_miss(make: Make) -> None:
    """A block stored under another layout cannot be loaded, and is not an error."""
    tier = _tier(make)
    _store_all(tier)
    for size in (0, 1023, 2048):
        content = _load_one(tier, _KEYS[0], size)
        require(
            content is None,
            f"a buffer of {size} bytes is not filled from a block of 1024",
            "the block was reported ok",
            "compare lengths and return TierBlock(ok=False)",
        )


def stricter_quality_never_finds_more(make: Make) -> None:
    """EXACT is a subset of HIGH, HIGH of ANY."""
    tier = _tier(make)
    _store_all(tier)
    counts = [tier.lookup(_KEYS, one) for one in (KVQuality.EXACT, KVQuality.HIGH, KVQuality.ANY)]
    require(
        counts == sorted(counts),
        "lookup() finds no more for EXACT than for HIGH, and no more for HIGH than for ANY",
        f"{counts} for EXACT, HIGH, ANY",
        "filter by format and lineage; see rtp_core.api.KVQuality",
    )


def storing_again_is_harmless(make: Make) -> None:
    """The same key comes again with the same bytes."""
    tier = _tier(make)
    first = _store_all(tier)
    _store_all(tier)
    content = _load_one(tier, _KEYS[0], len(_BLOBS[0]))
    require(
        first == 0 or content == _BLOBS[0],
        "a block stored twice is still there",
        "it is lost",
        "let a second store() of a key replace or skip it",
    )


CHECKS: tuple[Check, ...] = (
    has_members(KVTier),
    unknown_keys_are_misses,
    loading_unknown_keys_resolves_to_misses,
    stored_blocks_come_back,
    lookup_counts_leading_keys_only,
    a_batch_may_hit_and_miss,
    a_buffer_of_wrong_size_is_a_miss,
    stricter_quality_never_finds_more,
    storing_again_is_harmless,
)


class _Guarded:
    """The tier; whatever it raises breaks the contract."""

    def __init__(self, tier: KVTier) -> None:
        self._tier = tier

    def lookup(self, keys: Sequence[bytes], quality: KVQuality) -> int:
        return self._call("lookup", keys, quality)

    def load(self, keys: Sequence[bytes], blobs: Sequence[memoryview]) -> Future[Any]:
        return self._call("load", keys, blobs)

    def store(self, keys: Sequence[bytes], blobs: Sequence[bytes]) -> Future[int]:
        return self._call("store", keys, blobs)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._tier, name)(*arguments)
        except Exception as error:
            raise _never_raises(f"{name}()", error) from error


def _never_raises(what: str, error: Exception) -> NotConformingError:
    return NotConformingError(
        f"{what} never raises: a failing tier is a miss",
        f"it raised {error!r}",
        "catch the errors of your storage and answer with a miss",
    )


def _tier(make: Make) -> _Guarded:
    return _Guarded(make(build_context()))


def _resolve(future: Future[Any], what: str) -> Any:
    try:
        return future.result(DEADLINE_S)
    except TimeoutError as error:
        raise NotConformingError(
            f"the future of {what} resolves within {DEADLINE_S:.0f} s",
            "it is still pending",
            "set a result on every path, errors included",
        ) from error
    except Exception as error:
        raise _never_raises(f"the future of {what}", error) from error


def _store_all(tier: _Guarded) -> int:
    kept = _resolve(tier.store(_KEYS, _BLOBS), "store()")
    require(
        type(kept) is int and 1 <= kept <= len(_KEYS),
        f"store() of {len(_KEYS)} blocks of 1 KiB resolves to the number kept, 1 … {len(_KEYS)}",
        repr(kept),
        "keep at least one small block; count what was kept",
    )
    return kept


def _load_one(tier: _Guarded, key: bytes, size: int) -> bytes | None:
    buffer = bytearray(size)
    (block,) = _resolve(tier.load((key,), (memoryview(buffer),)), "load()")
    require(
        isinstance(block, TierBlock),
        "load() resolves to TierBlock objects",
        repr(block),
        "return a tuple of rtp_core.api.TierBlock",
    )
    return bytes(buffer) if block.ok else None
