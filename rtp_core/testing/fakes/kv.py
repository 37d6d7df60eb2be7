"""KV memory with one tensor a layer and plane, and a tier in a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from rtp_core.api import (
    BlockCopy,
    KVFormatId,
    KVGroup,
    KVMemory,
    KVQuality,
    KVSpace,
    TierBlock,
)

if TYPE_CHECKING:
    import torch


class ListSpace:
    """`api.KVSpace`: the lowest free block, unless a neighbour is asked for."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks))

    @property
    def num_free(self) -> int:
        """Blocks left."""
        return len(self._free)

    def allocate(self, format_id: KVFormatId, near: int | None = None) -> int | None:
        """`near` + 1 if it is free; None when full."""
        del format_id
        if not self._free:
            return None
        wanted = -1 if near is None else near + 1
        block = wanted if wanted in self._free else self._free[0]
        self._free.remove(block)
        return block

    def free(self, block: int) -> None:
        """Raises ValueError for a block that nobody holds."""
        if block in self._free or not 0 <= block < self.num_blocks:
            raise ValueError(f"block {block} is not allocated")
        self._free.append(block)


class PlaneStore:
    """`api.KVStore` of dense blocks."""

    formats = (KVFormatId.DENSE,)

    def block_bytes(self, group: KVGroup, block_size: int) -> int:
        """K and V of all layers."""
        import torch

        width = sum(
            plane.num_heads * plane.head_dim * getattr(torch, plane.dtype).itemsize
            for plane in group.planes
        )
        state = group.block_state * getattr(torch, group.planes[0].dtype).itemsize
        return len(group.layers) * block_size * width + state

    def open(
        self, groups: Sequence[KVGroup], num_blocks: Sequence[int], block_size: int, device: str
    ) -> KVMemory:
        """Zeroed planes."""
        return PlaneMemory(groups, num_blocks, block_size, device)


class PlaneMemory:
    """`api.KVMemory`; each layer owns K and V as [kv_heads, slots, head_dim]."""

    def __init__(
        self, groups: Sequence[KVGroup], num_blocks: Sequence[int], block_size: int, device: str
    ) -> None:
        import torch

        self._groups = groups
        self._block_size = block_size
        self._spaces = [ListSpace(count) for count in num_blocks]
        self._planes: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._states = [
            torch.zeros(
                (count, group.block_state),
                dtype=getattr(torch, group.planes[0].dtype),
                device=device,
            )
            for group, count in zip(groups, num_blocks, strict=True)
        ]
        for group, count in zip(groups, num_blocks, strict=True):
            for layer in group.layers:
                keys, values = (
                    torch.zeros(
                        (plane.num_heads, count * block_size, plane.head_dim),
                        dtype=getattr(torch, plane.dtype),
                        device=device,
                    )
                    for plane in group.planes
                )
                self._planes[layer] = keys, values

    @property
    def num_bytes(self) -> int:
        """Bytes of all planes and states."""
        planes = sum(plane.nbytes for pair in self._planes.values() for plane in pair)
        return planes + sum(state.nbytes for state in self._states)

    def space(self, group: int) -> KVSpace:
        """Allocator of a group."""
        return self._spaces[group]

    def planes(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V of a layer."""
        return self._planes[layer]

    def states(self, group: int) -> torch.Tensor:
        """Of all blocks of a group."""
        return self._states[group]

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """In order."""
        for one in copies:
            sources = self._parts(one.group, one.source)
            for source, target in zip(
                sources, self._parts(one.group, one.destination), strict=True
            ):
                target.copy_(source)

    def export_block(self, group: int, block: int) -> bytes:
        """Layer, K then V, head, token, dim; then the state."""
        import torch

        return b"".join(
            part.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            for part in self._parts(group, block)
        )

    def import_block(self, group: int, block: int, blob: bytes) -> None:
        """Raises ValueError on a wrong length."""
        import torch

        parts = self._parts(group, block)
        if len(blob) != sum(part.nbytes for part in parts):
            raise ValueError(f"{len(blob)} bytes are not a block")
        raw = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
        at = 0
        for part in parts:
            here = raw[at : at + part.nbytes].clone()
            part.copy_(here.view(part.dtype).view(part.shape))
            at += part.nbytes

    def _parts(self, group: int, block: int) -> list[torch.Tensor]:
        start = block * self._block_size
        return [
            *(
                plane.narrow(1, start, self._block_size)
                for layer in self._groups[group].layers
                for plane in self._planes[layer]
            ),
            self._states[group][block],
        ]


class DictTier:
    """`api.KVTier` that keeps the first `capacity` blocks it is given."""

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._held: dict[bytes, bytes] = {}

    def lookup(self, keys: Sequence[bytes], quality: KVQuality) -> int:
        """Leading keys held; dense blocks suit every quality."""
        del quality
        missing = (place for place, key in enumerate(keys) if key not in self._held)
        return next(missing, len(keys))

    def load(
        self, keys: Sequence[bytes], blobs: Sequence[memoryview]
    ) -> Future[tuple[TierBlock, ...]]:
        """Filled before the future is returned."""
        done: Future[tuple[TierBlock, ...]] = Future()
        done.set_result(tuple(self._fill(key, blob) for key, blob in zip(keys, blobs, strict=True)))
        return done

    def store(self, keys: Sequence[bytes], blobs: Sequence[bytes]) -> Future[int]:
        """Kept before the future is returned."""
        done: Future[int] = Future()
        room = max(0, self._capacity - len(self._held))
        kept = list(zip(keys, blobs, strict=True))[:room]
        self._held.update(kept)
        done.set_result(len(kept))
        return done

    def _fill(self, key: bytes, blob: memoryview) -> TierBlock:
        held = self._held.get(key)
        if held is None or len(held) != len(blob):
            return TierBlock(ok=False)
        blob[:] = held
        return TierBlock(ok=True)
