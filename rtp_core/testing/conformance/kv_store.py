"""What every KVStore and the KVMemory it opens must keep."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from rtp_core.api import BlockCopy, KVFormatId, KVGroup, KVMemory, KVPlane, KVSpace, KVStore
from rtp_core.testing.conformance.shape import has_members, require_members
from rtp_core.testing.conformance.verdict import Check, Make, raises, require, show
from rtp_core.testing.contexts import build_context

BLOCK = 16
BLOCKS = (9, 5)
BYTES_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class _Opened:
    store: KVStore
    memory: KVMemory
    groups: tuple[KVGroup, ...]


def formats_begin_with_the_default(make: Make) -> None:
    """At least one format, no duplicates."""
    formats = make(build_context()).formats
    require(
        len(formats) > 0
        and len(set(formats)) == len(formats)
        and all(isinstance(one, KVFormatId) for one in formats),
        "formats is a tuple of distinct KVFormatId, the default first",
        repr(formats),
        "return (KVFormatId.DENSE,) for plain blocks",
    )


def memory_has_the_members_of_its_protocol(make: Make) -> None:
    """KVMemory and KVSpace are complete."""
    opened = _open(make)
    require_members(opened.memory, KVMemory)
    require_members(opened.memory.space(0), KVSpace)


def memory_is_as_large_as_promised(make: Make) -> None:
    """The engine sizes the cache from `block_bytes`; an overrun would exhaust the device."""
    opened = _open(make)
    promised = sum(
        count * opened.store.block_bytes(group, BLOCK)
        for group, count in zip(opened.groups, BLOCKS, strict=True)
    )
    actual = opened.memory.num_bytes
    require(
        abs(actual - promised) <= BYTES_TOLERANCE * promised,
        f"num_bytes is about {promised}, the sum of block_bytes() over all blocks",
        f"num_bytes is {actual}",
        "count codes, scales and padding in block_bytes(), and all groups in num_bytes",
    )


def a_space_hands_out_each_block_once(make: Make) -> None:
    """Every id below `num_blocks` once, then None; `num_free` counts down."""
    for number, count in enumerate(BLOCKS):
        space = _open(make).memory.space(number)
        require(
            (space.num_blocks, space.num_free) == (count, count),
            f"group {number} has {count} blocks, all free",
            f"num_blocks {space.num_blocks}, num_free {space.num_free}",
            "give each group the number of blocks that open() was called with",
        )
        taken = [space.allocate(KVFormatId.DENSE) for _ in range(count)]
        require(
            sorted(one for one in taken if one is not None) == list(range(count)),
            f"allocate() hands out 0 … {count - 1}, each once",
            show(taken, 16),
            "take a block out of the free set when it is handed out",
        )
        require(
            space.allocate(KVFormatId.DENSE) is None and space.num_free == 0,
            "a full space returns None and has num_free 0",
            f"num_free {space.num_free}",
            "return None when no block is left; never raise, never evict",
        )


def near_blocks_are_adjacent(make: Make) -> None:
    """`near` gives its successor while that is free, and another block otherwise."""
    space = _open(make).memory.space(0)
    while space.allocate(KVFormatId.DENSE) is not None:
        pass
    for block in (1, 4, 7):
        space.free(block)
    found = [space.allocate(KVFormatId.DENSE, 3) for _ in range(4)]
    require(
        found[0] == 4,
        "allocate(near=3) returns 4 while 1, 4 and 7 are free",
        repr(found[0]),
        "prefer near + 1: adjacent blocks are read as one run",
    )
    require(
        set(found[1:]) == {1, 7, None},
        "allocate(near=3) returns the other free blocks when 4 is taken, then None",
        show(found[1:]),
        "`near` is a wish, not a condition",
    )


def freeing_twice_is_an_error(make: Make) -> None:
    """A double free would give one block to two sequences."""
    space = _open(make).memory.space(0)
    block = space.allocate(KVFormatId.DENSE)
    space.free(_number(block))
    remedy = "keep the set of free ids, and raise ValueError for an id in it or out of range"
    for wrong in (_number(block), BLOCKS[0], -1):
        raises(
            partial(space.free, wrong), (ValueError,), f"free({wrong}) raises ValueError", remedy
        )
    require(
        space.num_free == BLOCKS[0],
        f"num_free is {BLOCKS[0]} after the refused frees",
        str(space.num_free),
        remedy,
    )


def planes_have_the_geometry_of_their_group(make: Make) -> None:
    """[kv_heads, num_blocks * block_size, head_dim] in the group's dtype, K and V each."""
    opened = _open(make)
    for group, count in zip(opened.groups, BLOCKS, strict=True):
        for layer in group.layers:
            pair = opened.memory.planes(layer)
            for plane, wanted in zip(pair, group.planes, strict=True):
                shape = (wanted.num_heads, count * BLOCK, wanted.head_dim)
                require(
                    tuple(plane.shape) == shape and str(plane.dtype) == f"torch.{wanted.dtype}",
                    f"planes({layer}) are {shape} of {wanted.dtype}",
                    f"{tuple(plane.shape)} of {plane.dtype}",
                    "K and V may differ in heads and head_dim; both come from group.planes",
                )


def planes_are_views(make: Make) -> None:
    """What attention writes through `planes` is what `planes` shows later, layer by layer."""
    opened = _open(make)
    _fill(opened)
    for group in opened.groups:
        for layer in group.layers:
            for which, plane in enumerate(opened.memory.planes(layer)):
                require(
                    bool((plane == _mark(layer, which)).all()),
                    f"planes({layer})[{which}] shows what was written to it",
                    "it shows something else",
                    "return views of one memory; layers, K and V must not overlap",
                )


def copies_move_whole_blocks(make: Make) -> None:
    """All layers, K and V, in the order given, and nothing but the destination."""
    opened = _open(make)
    before = _randomise(opened)
    opened.memory.copy((BlockCopy(0, 1, 2), BlockCopy(0, 2, 7), BlockCopy(1, 0, 3)))
    moved = {0: {2: 1, 7: 1}, 1: {3: 0}}
    for number, group in enumerate(opened.groups):
        for layer in group.layers:
            for which, plane in enumerate(opened.memory.planes(layer)):
                expected = before[layer][which].clone()
                for target, source in moved[number].items():
                    _block(expected, target).copy_(_block(before[layer][which], source))
                require(
                    torch.equal(plane, expected),
                    "copy() writes the destination blocks of the group, all layers, K and V",
                    f"layer {layer}, {'KV'[which]} differs from a copy made block by block",
                    "copy block_size slots at block * block_size, one BlockCopy after the other",
                )


def states_belong_to_blocks(make: Make) -> None:
    """[num_blocks, block_state], kept apart from keys and values, and copied with the block."""
    opened = _open(make)
    for number, (group, count) in enumerate(zip(opened.groups, BLOCKS, strict=True)):
        states = opened.memory.states(number)
        require(
            tuple(states.shape) == (count, group.block_state),
            f"states({number}) is [{count}, {group.block_state}], as the group asks",
            show(tuple(states.shape)),
            "keep group.block_state numbers for each block, in the dtype of its keys",
        )
    _fill(opened)
    opened.memory.states(1).copy_(torch.arange(BLOCKS[1] * 3).view(BLOCKS[1], 3))
    opened.memory.copy((BlockCopy(1, 1, 3),))
    require(
        opened.memory.states(1)[:, 0].tolist() == [0, 3, 6, 3, 12]
        and bool((opened.memory.planes(1)[0] == _mark(1, 0)).all()),
        "copy() takes a block's state along, and states overlap no keys",
        show(opened.memory.states(1)[:, 0].tolist()),
        "copy states[source] to states[destination] too",
    )


def blobs_are_canonical(make: Make) -> None:
    """Layer, K then V, head, token, dim: tiers and peers rely on the order."""
    opened = _open(make)
    planes = _randomise(opened)
    for number, group in enumerate(opened.groups):
        expected = b"".join(
            _bytes(_block(planes[layer][which], 3)) for layer in group.layers for which in (0, 1)
        ) + _bytes(opened.memory.states(number)[3])
        blob = opened.memory.export_block(number, 3)
        require(
            bytes(blob) == expected,
            f"export_block() is {len(expected)} bytes: layer, K then V, head, token, dim; state",
            f"{len(blob)} bytes" + (", in another order" if len(blob) == len(expected) else ""),
            "export dense values in this order, whatever the layout of the memory",
        )


def blocks_survive_export_and_import(make: Make) -> None:
    """A block imported elsewhere is the block that was exported; others stay."""
    opened = _open(make)
    _randomise(opened)
    for number in range(len(BLOCKS)):
        blob = opened.memory.export_block(number, 1)
        other = opened.memory.export_block(number, 2)
        opened.memory.import_block(number, 4, blob)
        require(
            opened.memory.export_block(number, 4) == blob
            and opened.memory.export_block(number, 2) == other,
            "import_block() is the inverse of export_block(), for one block",
            f"group {number} differs after the round trip",
            "write the slots of the named block only",
        )


def blobs_of_wrong_length_are_refused(make: Make) -> None:
    """A blob of another model or block size must not be written."""
    memory = _open(make).memory
    blob = memory.export_block(0, 0)
    for wrong in (blob[:-1], blob + b"\0", b""):
        raises(
            partial(memory.import_block, 0, 0, wrong),
            (ValueError,),
            f"import_block() of {len(wrong)} bytes raises ValueError (a block has {len(blob)})",
            "compare the length before the first byte is written",
        )


CHECKS: tuple[Check, ...] = (
    has_members(KVStore),
    formats_begin_with_the_default,
    memory_has_the_members_of_its_protocol,
    memory_is_as_large_as_promised,
    a_space_hands_out_each_block_once,
    near_blocks_are_adjacent,
    freeing_twice_is_an_error,
    planes_have_the_geometry_of_their_group,
    planes_are_views,
    copies_move_whole_blocks,
    states_belong_to_blocks,
    blobs_are_canonical,
    blocks_survive_export_and_import,
    blobs_of_wrong_length_are_refused,
)


def _open(make: Make) -> _Opened:
    """Two groups that differ in every respect; in one of them K and V differ too."""
    groups = (
        KVGroup("main", (0, 2), (KVPlane(2, 8, "float32"), KVPlane(2, 8, "float32"))),
        KVGroup(
            "window",
            (1,),
            (KVPlane(1, 16, "bfloat16"), KVPlane(1, 8, "bfloat16")),
            32,
            block_state=3,
        ),
    )
    store: KVStore = make(build_context())
    return _Opened(store, store.open(groups, BLOCKS, BLOCK, "cpu"), groups)


def _number(block: int | None) -> int:
    require(block is not None, "a fresh space has a block", "None", "start with all blocks free")
    return -1 if block is None else block


def _mark(layer: int, which: int) -> float:
    return float(2 * layer + which + 1)


def _fill(opened: _Opened) -> None:
    for group in opened.groups:
        for layer in group.layers:
            for which, plane in enumerate(opened.memory.planes(layer)):
                plane.fill_(_mark(layer, which))


def _randomise(opened: _Opened) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Copies of what every plane holds now."""
    generator = torch.Generator().manual_seed(3)
    held: dict[int, Any] = {}
    for group in opened.groups:
        for layer in group.layers:
            pair = opened.memory.planes(layer)
            for plane in pair:
                plane.copy_(torch.randn(plane.shape, generator=generator))
            held[layer] = tuple(plane.clone() for plane in pair)
    for number in range(len(opened.groups)):
        states = opened.memory.states(number)
        states.copy_(torch.randn(states.shape, generator=generator))
    return held


def _block(plane: torch.Tensor, block: int) -> torch.Tensor:
    return plane[:, block * BLOCK : (block + 1) * BLOCK]


def _bytes(part: torch.Tensor) -> bytes:
    return part.contiguous().flatten().view(torch.uint8).numpy().tobytes()
