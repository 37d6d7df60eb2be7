"""File-order loading: each file is read once, front to back, with many reads in flight.

Files are cut into blocks, which a few threads take in turn, from several files at once. A block
is read into a slot of a small ring, or on a CPU right into its destination, and its tensors are
placed from there: storage, copies to a device and conversion all go on at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rtp_core.api import LoadStats, PieceSink, WeightPlan, WeightSink
from rtp_core.loading.blocks import Cutting, plan_blocks
from rtp_core.loading.host_memory import HostMemory
from rtp_core.loading.read_at import LocalFile, ReadAt
from rtp_core.loading.readers import SLOTS_A_THREAD, Readers, Reading
from rtp_core.loading.whole_tensors import WholeTensors

READ_BYTES = 4 * 2**20
IN_FLIGHT = 16
RING_BYTES = 2**30
"""The ring never has more."""
STALL_S = 120.0
_FILES_AT_ONCE = 4


class FileOrderLoader:
    """`open_file` is the seam to other storage; `in_flight` reads are kept under way.

    Memory besides the parameters: twice as many reads, and for sinks that take whole tensors
    only, those under way. With `alignment` > 1 offsets, lengths and buffers of all reads are
    multiples of it, and a read still has no more than `read_bytes`: pinned memory comes in powers
    of two. After `stall_s` seconds without a byte the load fails.
    """

    def __init__(
        self,
        open_file: Callable[[str], ReadAt] = LocalFile.open,
        read_bytes: int = READ_BYTES,
        in_flight: int = IN_FLIGHT,
        *,
        alignment: int = 1,
        stall_s: float = STALL_S,
    ) -> None:
        threads = max(1, min(in_flight, RING_BYTES // (SLOTS_A_THREAD * read_bytes)))
        self._reading = Reading(open_file, threads, read_bytes, alignment, stall_s)
        self._block_bytes = read_bytes - (2 * alignment if alignment > 1 else 0)

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`. Raises WeightLoadError naming file and tensor."""
        began = time.perf_counter()
        memory = HostMemory()
        pieces = sink if isinstance(sink, PieceSink) else WholeTensors(sink, memory)
        cutting = Cutting(pieces.unit, self._block_bytes, self._reading.alignment)
        blocks = plan_blocks(plan, cutting, min(_FILES_AT_ONCE, self._reading.threads))
        num_bytes = Readers(self._reading, blocks, pieces, memory).run(progress)
        return LoadStats("file_order", num_bytes, time.perf_counter() - began, memory.peak)
