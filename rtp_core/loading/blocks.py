"""Files as blocks: what is read in one go, cut where every tensor in it may be cut.

A piece of a tensor is then complete in itself, whole rows or whole quantization blocks, and can
be placed as soon as its bytes are there, before or after any other piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rtp_core.api import Placement, WeightPlan
from rtp_core.loading.order import by_file

MAX_GAP_BYTES = 64 * 2**10
"""Bytes nobody wants, read along rather than making another request."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [begin, end) of a placement's tensor."""

    placement: Placement
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes [begin, end) of a file, and the pieces in them."""

    file: str
    begin: int
    end: int
    pieces: tuple[Piece, ...]

    @property
    def placed_bytes(self) -> int:
        """Bytes of all pieces."""
        return sum(piece.end - piece.begin for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Cutting:
    """`unit` gives the bytes of a tensor that stay together, see `api.PieceSink`.

    Blocks have at most `block_bytes`, unless a unit has more; they end at multiples of
    `alignment` where units allow it.
    """

    unit: Callable[[Placement], int]
    block_bytes: int
    alignment: int = 1


def plan_blocks(plan: WeightPlan, cutting: Cutting, files_at_once: int) -> Iterator[Block]:
    """All blocks: each file front to back, so many files in turns."""
    waiting = [file_blocks(one, cutting) for one in by_file(plan).values() if one]
    waiting.reverse()
    active: list[Iterator[Block]] = []
    while waiting or active:
        while waiting and len(active) < files_at_once:
            active.append(waiting.pop())
        for blocks in list(active):
            block = next(blocks, None)
            if block is None:
                active.remove(blocks)
            else:
                yield block


def file_blocks(placements: Sequence[Placement], cutting: Cutting) -> Iterator[Block]:
    """The blocks of one file, whose placements are sorted by offset."""
    for one in placements:
        if not one.tensor.num_bytes:
            at = one.tensor.offset
            yield Block(one.tensor.file, at, at, (Piece(one, 0, 0),))
    sweep = _Sweep([one for one in placements if one.tensor.num_bytes], cutting)
    while (block := sweep.next_block()) is not None:
        yield block


class _Sweep:
    """Moves over a file; `_open` are placements that have begun and not ended."""

    def __init__(self, placements: Sequence[Placement], cutting: Cutting) -> None:
        self._placements = placements
        self._cutting = cutting
        self._next = 0
        self._open: list[Placement] = []
        self._at = 0

    def next_block(self) -> Block | None:
        if not self._open:
            if self._next == len(self._placements):
                return None
            self._open.append(self._placements[self._next])
            self._next += 1
        begin = self._at = max(self._at, min(one.tensor.offset for one in self._open))
        limit = begin + self._cutting.block_bytes
        aligned = limit // self._cutting.alignment * self._cutting.alignment
        end = self._admit(aligned if aligned > begin else limit)
        end = self._cut(begin, end)
        pieces = tuple(_piece(one, begin, end) for one in self._open if one.tensor.offset < end)
        self._open = [one for one in self._open if _stop(one) > end]
        self._at = end
        return Block(pieces[0].placement.tensor.file, begin, end, pieces)

    def _admit(self, end: int) -> int:
        """Placements that begin before `end`, up to a large hole; the end without that hole."""
        reach = max(_stop(one) for one in self._open)
        while self._next < len(self._placements):
            one = self._placements[self._next]
            if one.tensor.offset >= end or one.tensor.offset - reach > MAX_GAP_BYTES:
                break
            self._open.append(one)
            self._next += 1
            reach = max(reach, _stop(one))
        return min(end, reach)

    def _cut(self, begin: int, end: int) -> int:
        """The last place up to `end` where all may be cut, or the first one after it."""
        back = self._settle(end, up=False)
        if back > begin:
            return back
        while (forth := self._admit(self._settle(end, up=True))) != end:
            end = forth
        return end

    def _settle(self, end: int, *, up: bool) -> int:
        while True:
            moved = [self._boundary(one, end, up=up) for one in self._open]
            settled = max(moved) if up else min(moved)
            if settled == end:
                return end
            end = settled

    def _boundary(self, one: Placement, end: int, *, up: bool) -> int:
        """Where `one` may be cut at or before `end`, or after it."""
        offset, stop = one.tensor.offset, _stop(one)
        if not offset < end < stop:
            return end
        units, rest = divmod(end - offset, self._cutting.unit(one))
        return min(stop, offset + (units + (up and rest > 0)) * self._cutting.unit(one))


def _stop(one: Placement) -> int:
    return one.tensor.offset + one.tensor.num_bytes


def _piece(one: Placement, begin: int, end: int) -> Piece:
    offset = one.tensor.offset
    return Piece(one, max(begin, offset) - offset, min(end, _stop(one)) - offset)
