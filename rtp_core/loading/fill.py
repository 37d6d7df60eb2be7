"""One block's bytes into one buffer: short reads go on, a failed one is tried once more."""

from __future__ import annotations

from collections.abc import Callable

from rtp_core.errors import WeightLoadError
from rtp_core.loading.blocks import Block
from rtp_core.loading.read_at import ReadAt


def fill(
    reader: ReadAt, block: Block, offset: int, buffer: memoryview, beat: Callable[[], None]
) -> int:
    """Read from `offset` until the block's end is there, more if `buffer` is larger; bytes read.

    `beat` is called for every read that brought something. Raises WeightLoadError naming file
    and tensor after two failures in a row.
    """
    needed = block.end - offset
    done = 0
    failed = False
    while done < needed:
        try:
            count = reader.read_into(offset + done, buffer[done:])
            reason = "the file ends here"
        except OSError as error:
            count, reason = 0, str(error)
        if count == 0 and failed:
            raise WeightLoadError(
                f"reading at byte {offset + done} failed: {reason}",
                file=block.file,
                tensor=tensor_at(block, offset + done),
                remedy="check the storage and that the file is complete",
            )
        if count:
            beat()
        failed = count == 0
        done += count
    return done


def tensor_at(block: Block, offset: int) -> str:
    """Name of the tensor that a byte of the file belongs to, or of the next one."""
    for piece in block.pieces:
        tensor = piece.placement.tensor
        if offset < tensor.offset + piece.end:
            return tensor.name
    return block.pieces[-1].placement.tensor.name
