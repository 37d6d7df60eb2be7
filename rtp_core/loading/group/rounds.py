"""The order in which ranks read and hand on: known to all of them before the first byte.

Files are cut into blocks for all ranks at once. Rank r reads the blocks i with i % N == r, N of
them make a round, and of its block it sends every rank the bytes that rank has a place for:
all of what is replicated or divided by columns, and of what is divided by rows the rows of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from rtp_core.api import Placement, WeightPlan
from rtp_core.loading.blocks import Block, Cutting, Piece, plan_blocks
from rtp_core.loading.landing import natural_unit


@dataclass(frozen=True, slots=True)
class Message:
    """What one rank gets of a block: its pieces, in runs [begin, end) of the file."""

    pieces: tuple[Piece, ...]
    runs: tuple[tuple[int, int], ...]

    @property
    def num_bytes(self) -> int:
        """Of all runs."""
        return sum(end - begin for begin, end in self.runs)

    def position(self, offset: int) -> int:
        """Where a byte of the file lies among the runs."""
        at = 0
        for begin, end in self.runs:
            if begin <= offset <= end:
                return at + offset - begin
            at += end - begin
        raise ValueError(f"byte {offset} is not sent")


@dataclass(frozen=True, slots=True)
class Round:
    """Up to as many blocks as ranks, block r read by rank r; `messages[r][s]` goes from r to s."""

    blocks: tuple[Block, ...]
    messages: tuple[tuple[Message, ...], ...]

    def sent(self, rank: int) -> list[int]:
        """Bytes that `rank` sends to each."""
        if rank >= len(self.blocks):
            return [0] * len(self.messages[0])
        return [0 if to == rank else one.num_bytes for to, one in enumerate(self.messages[rank])]

    def received(self, rank: int) -> list[int]:
        """Bytes that `rank` gets from each."""
        sizes = [0 if by == rank else one[rank].num_bytes for by, one in enumerate(self.messages)]
        return sizes + [0] * (len(self.messages[0]) - len(self.blocks))


def rounds(plans: Sequence[WeightPlan], block_bytes: int) -> Iterator[Round]:
    """All of them; `plans` are those of all ranks."""
    owners: dict[int, tuple[int, Placement]] = {}
    copies: list[Placement] = []
    for rank, plan in enumerate(plans):
        for placement in plan.placements:
            copy = replace(placement)
            copies.append(copy)
            owners[id(copy)] = rank, placement
    files = {file: size for plan in plans for file, size in plan.file_bytes.items()}
    everything = WeightPlan((), tuple(copies), files)
    blocks = plan_blocks(everything, Cutting(natural_unit, block_bytes), 1)
    while together := tuple(islice(blocks, len(plans))):
        messages = tuple(
            tuple(_message(block, rank, owners) for rank in range(len(plans))) for block in together
        )
        yield Round(together, messages)


def fingerprint(plans: Sequence[WeightPlan], name: Callable[[str], str]) -> str:
    """Equal for ranks that will read the same bytes of the same files in the same order."""
    digest = hashlib.blake2b(digest_size=16)
    for plan in plans:
        for one in plan.placements:
            tensor = one.tensor
            line = f"{name(tensor.file)}|{tensor.name}|{tensor.offset}|{tensor.num_bytes}|{one.cut}"
            digest.update(f"{line}|{one.rule}\n".encode("utf-8", "surrogatepass"))
        for file, size in sorted(plan.file_bytes.items()):
            digest.update(f"{name(file)}|{size}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _message(block: Block, rank: int, owners: dict[int, tuple[int, Placement]]) -> Message:
    mine: list[Piece] = []
    runs: list[tuple[int, int]] = []
    for piece in block.pieces:
        owner, placement = owners[id(piece.placement)]
        if owner == rank:
            mine.append(Piece(placement, piece.begin, piece.end))
            offset = placement.tensor.offset
            runs.append((offset + piece.begin, offset + piece.end))
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(runs):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return Message(tuple(mine), tuple(merged))
