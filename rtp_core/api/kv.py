"""KV cache vocabulary: groups, formats, blocks, stores, tiers and events.

Address rule: ``base + granule * G + layer * L + (K or V) * P + head * H``, strides chosen
per device by the store. A block is `block_size` consecutive tokens of one KV group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from concurrent.futures import Future

    import torch


class KVQuality(StrEnum):
    """Least precision of cached KV a request accepts."""

    EXACT = "exact"
    HIGH = "high"
    ANY = "any"


class KVFormatId(IntEnum):
    """Storage formats; order is not precision. Plugins implement those beyond DENSE."""

    DENSE = 0
    INT8_TOKEN = 1
    FP8_TOKEN = 2
    INT4_CHANNEL = 3


@dataclass(frozen=True, slots=True)
class KVPlane:
    """Geometry of one stored vector per token and layer (K or V)."""

    num_heads: int
    head_dim: int
    dtype: str


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Layers with one lifetime and geometry; they share a block table per request.

    `sliding_window` counts visible tokens (key j visible to query i iff 0 <= i-j < window).
    Keys of the first `first_key` tokens of a sequence are never seen: a drafter has no row for
    token 0. `block_state` numbers, in the dtype of keys, are kept with each block beside its
    tokens and live as long; what the next block's first row needs of this one.
    """

    name: str
    layers: tuple[int, ...]
    planes: tuple[KVPlane, KVPlane]
    sliding_window: int | None = None
    first_key: int = 0
    block_state: int = 0


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """Copy a whole block inside one group before the step's forward."""

    group: int
    source: int
    destination: int


@dataclass(frozen=True, slots=True)
class KVLoad:
    """Blocks that a tier or transport fills before the step's forward."""

    group: int
    keys: tuple[bytes, ...]
    blocks: tuple[int, ...]
    tier: str


@dataclass(frozen=True, slots=True)
class KVEvent:
    """Published by the block pool for routers. `token_ids` only for ``stored``."""

    kind: Literal["stored", "removed", "cleared"]
    group: int = 0
    keys: tuple[bytes, ...] = ()
    parent: bytes | None = None
    token_ids: tuple[int, ...] = ()
    block_size: int = 0


class KVSpace(Protocol):
    """Raw blocks of one group, by format. Bookkeeping only: no torch, no references."""

    @property
    def num_blocks(self) -> int:
        """Blocks that exist in the default format."""
        ...

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can still hand out in the default format."""
        ...

    def allocate(self, format_id: KVFormatId, near: int | None = None) -> int | None:
        """Take a block, adjacent to `near` (id `near` + 1) if possible; None when full."""
        ...

    def free(self, block: int) -> None:
        """Give a block back."""
        ...


class KVMemory(Protocol):
    """Opened device memory of all groups."""

    @property
    def num_bytes(self) -> int:
        """Bytes resident on the device."""
        ...

    def space(self, group: int) -> KVSpace:
        """Block allocator of a group."""
        ...

    def planes(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V of a layer as [kv_heads, num_blocks * block_size, head_dim] views."""
        ...

    def states(self, group: int) -> torch.Tensor:
        """[num_blocks, block_state] of a group, a view."""
        ...

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copy whole blocks, in order, with their states."""
        ...

    def export_block(self, group: int, block: int) -> bytes:
        """Canonical blob: layer-major, K then V, head, token, dim; then the block's state."""
        ...

    def import_block(self, group: int, block: int, blob: bytes) -> None:
        """Inverse of `export_block`; raises ValueError on a wrong length."""
        ...


class KVStore(Protocol):
    """Owner of formats and device memory; built once per engine."""

    @property
    def formats(self) -> tuple[KVFormatId, ...]:
        """Formats this store may place blocks in; the first is the default."""
        ...

    def block_bytes(self, group: KVGroup, block_size: int) -> int:
        """Device bytes of one block of `group` in the default format."""
        ...

    def open(
        self, groups: Sequence[KVGroup], num_blocks: Sequence[int], block_size: int, device: str
    ) -> KVMemory:
        """Allocate the memory; one entry of `num_blocks` a group."""
        ...


class KVFormat(Protocol):
    """Codec between formats of one block (device memory, stream-ordered)."""

    @property
    def id(self) -> KVFormatId:
        """Which format this encodes to and decodes from."""
        ...

    def block_bytes(self, group: KVGroup, block_size: int) -> int:
        """Codes, scales and padding of one block."""
        ...

    def encode(self, source: torch.Tensor, destination: torch.Tensor) -> None:
        """Dense block to this format."""
        ...

    def decode_into(self, source: torch.Tensor, destination: torch.Tensor) -> None:
        """This format to a dense block."""
        ...


@dataclass(frozen=True, slots=True)
class TierBlock:
    """Outcome of loading one block: which format it has and what it was computed on."""

    ok: bool
    format_id: KVFormatId = KVFormatId.DENSE
    lineage: KVFormatId = KVFormatId.DENSE


class KVTier(Protocol):
    """Storage below device memory. A failing tier is a miss, never an error."""

    def lookup(self, keys: Sequence[bytes], quality: KVQuality) -> int:
        """Number of leading keys held; cheap; never raises."""
        ...

    def load(
        self, keys: Sequence[bytes], blobs: Sequence[memoryview]
    ) -> Future[tuple[TierBlock, ...]]:
        """Fill `blobs` (canonical form) in the background."""
        ...

    def store(self, keys: Sequence[bytes], blobs: Sequence[bytes]) -> Future[int]:
        """Keep copies; resolves to the number kept."""
        ...
