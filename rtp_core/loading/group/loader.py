"""The loader of a rank among others: each byte is read from storage by one of them.

While a round's blocks are exchanged the next ones are read. Before each exchange all ranks say
whether their block is sound: a bad file is an error everywhere, and nobody waits for one who has
given up. A rank that dies is noticed by the next call, one that hangs by its timeout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rtp_core.api import Lane, LoadStats, PieceSink, WeightPlan, WeightSink
from rtp_core.loading.file_order import READ_BYTES, STALL_S
from rtp_core.loading.group.own_reads import OwnReads
from rtp_core.loading.group.ranks import Ranks
from rtp_core.loading.group.rounds import Message, Round, fingerprint, rounds
from rtp_core.loading.group.talk import Talk
from rtp_core.loading.host_memory import HostMemory
from rtp_core.loading.landing import host_bytes
from rtp_core.loading.read_at import LocalFile, ReadAt
from rtp_core.loading.whole_tensors import WholeTensors

AHEAD = 3
"""Blocks that a rank reads while one is exchanged."""


class GroupLoader:
    """`api.WeightLoader` of rank `ranks.rank`; `plans` are those of all ranks, in order.

    Files bear the same names on all ranks. With `ahead` 0 reading and exchanging take turns.
    Memory besides the parameters: `ahead` + 1 blocks, and what a rank sends and gets a round.
    """

    def __init__(
        self,
        ranks: Ranks,
        plans: Sequence[WeightPlan],
        open_file: Callable[[str], ReadAt] = LocalFile.open,
        *,
        block_bytes: int = READ_BYTES,
        ahead: int = AHEAD,
        stall_s: float = STALL_S,
    ) -> None:
        self._ranks = ranks
        self._plans = plans
        self._open_file = open_file
        self._block_bytes = block_bytes
        self._ahead = ahead
        self._stall_s = stall_s

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`; `plan` is the rank's own. Raises WeightLoadError on all ranks."""
        began = time.perf_counter()
        memory = HostMemory()
        talk = Talk(self._ranks)
        folder = str(Path(next(iter(plan.file_bytes), "")).parent)
        talk.same(fingerprint(self._plans, lambda file: Path(file).name), folder)
        order = list(rounds(self._plans, self._block_bytes))
        pieces = sink if isinstance(sink, PieceSink) else WholeTensors(sink, memory)
        lane = pieces.lane()
        rank = self._ranks.rank
        own = [one.blocks[rank] for one in order if rank < len(one.blocks)]
        largest = max((one.end - one.begin for one in own), default=0)
        slots = [lane.buffer(largest) for _ in range(self._ahead + 1)]
        memory.take(largest * len(slots))
        with OwnReads(own, self._open_file, slots, self._stall_s) as reads:
            exchange = _Exchange(talk, lane, reads, progress)
            memory.take(exchange.allocate(order))
            for one in order:
                exchange.run(one)
            talk.agree()
        return LoadStats("group", reads.bytes_read, time.perf_counter() - began, memory.peak)


class _Exchange:
    """One round after the other; all ranks make the same calls whatever happens on one."""

    def __init__(
        self, talk: Talk, lane: Lane, reads: OwnReads, progress: Callable[[int], None]
    ) -> None:
        self._talk = talk
        self._lane = lane
        self._reads = reads
        self._progress = progress
        self._rank = talk.ranks.rank
        self._out = self._into = memoryview(b"")

    def allocate(self, order: Sequence[Round]) -> int:
        """Memory for the largest round, sent and received; its bytes."""
        out = max((sum(one.sent(self._rank)) for one in order), default=0)
        into = max((sum(one.received(self._rank)) for one in order), default=0)
        self._out, self._into = self._lane.buffer(out), self._lane.buffer(into)
        return out + into

    def run(self, one: Round) -> None:
        """Raises WeightLoadError on all ranks if some rank's block could not be read."""
        slot: list[memoryview] = []
        reads = self._rank < len(one.blocks)
        if reads:
            self._talk.attempt(lambda: slot.append(self._reads.next()))
        self._talk.agree()
        sent, received = one.sent(self._rank), one.received(self._rank)
        if reads:
            self._pack(one, slot[0])
        wait = self._talk.exchange(
            host_bytes(self._out[: sum(sent)]),
            sent,
            host_bytes(self._into[: sum(received)]),
            received,
        )
        if reads:
            begin, message = one.blocks[self._rank].begin, one.messages[self._rank][self._rank]
            self._talk.attempt(lambda: self._place(message, slot[0], lambda at: at - begin))
        wait()
        self._talk.attempt(lambda: self._place_received(one, received))
        self._talk.attempt(self._empty)
        if reads:
            self._reads.give_back(slot[0])

    def _pack(self, one: Round, slot: memoryview) -> None:
        """What the others want of this rank's block, by rank."""
        first, at = one.blocks[self._rank].begin, 0
        for rank, message in enumerate(one.messages[self._rank]):
            for begin, end in message.runs if rank != self._rank else ():
                self._out[at : at + end - begin] = slot[begin - first : end - first]
                at += end - begin

    def _place_received(self, one: Round, received: Sequence[int]) -> None:
        at = 0
        for reader, size in enumerate(received):
            if reader < len(one.blocks) and reader != self._rank:
                message = one.messages[reader][self._rank]
                self._place(message, self._into[at : at + size], message.position)
            at += size

    def _place(self, message: Message, data: memoryview, position: Callable[[int], int]) -> None:
        """`position` tells where a byte of the file lies in `data`."""
        for piece in message.pieces:
            at = position(piece.placement.tensor.offset + piece.begin)
            size = piece.end - piece.begin
            self._lane.put(piece.placement, piece.begin, data[at : at + size])
            self._progress(size)

    def _empty(self) -> None:
        """Until buffers may be used again."""
        if (fence := self._lane.fence()) is not None:
            fence()
