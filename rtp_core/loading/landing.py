"""Where the bytes of a placement go, piece by piece: as they are, decoded, or put together first.

All work here is submitted to a `Transfer`: on a device it is queued, and nothing waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import numpy as np
import torch

from rtp_core.api import Placement
from rtp_core.loading.codes import copy_codes, empty_codes
from rtp_core.loading.dequantize import decode_into, stored_dtype
from rtp_core.loading.gathering import Gathering
from rtp_core.loading.quantized.tensor import CODES, PartPlacement
from rtp_kernels.linear_weight import GROUP, GroupCodes

log = logging.getLogger("rtp.loading")
_CHUNK_BYTES = 2**18
"""Of a CPU's work at a time: what is made on the way to a destination stays in a core's cache."""


class Landing(Protocol):
    """One placement's way to its rows; any thread may bring any piece."""

    unit: int
    """See `api.PieceSink`."""

    def room(self, begin: int, end: int) -> memoryview | None:
        """See `api.Lane`."""
        ...

    def put(self, begin: int, data: torch.Tensor) -> None:
        """`data` uint8 in host memory."""
        ...


class AsIs:
    """Bytes of the file are bytes of the destination."""

    unit = 1

    def __init__(self, rows: torch.Tensor) -> None:
        self._bytes = rows.view(-1).view(torch.uint8)
        self._memory = self._bytes.numpy().data if self._bytes.device.type == "cpu" else None

    def room(self, begin: int, end: int) -> memoryview | None:
        """On a CPU files are read right into the destination."""
        return None if self._memory is None else self._memory[begin:end]

    def put(self, begin: int, data: torch.Tensor) -> None:
        """See Landing."""
        self._bytes[begin : begin + len(data)].copy_(data, non_blocking=True)


class Decoded:
    """Rows in the file's dtype and order become rows of the destination, any number at a time."""

    def __init__(self, placement: Placement, rows: torch.Tensor, codes: GroupCodes | None) -> None:
        tensor = placement.tensor
        self._tensor = tensor
        self._rows = rows
        self._codes = codes
        self._num_rows = _num_rows(placement)
        self._row_bytes = tensor.num_bytes // self._num_rows
        self._head_rows = self._num_rows // tensor.unpermute_heads if tensor.unpermute_heads else 1
        self.unit = natural_unit(placement)
        self._columns = _byte_columns(placement, self._row_bytes)

    def room(self, begin: int, end: int) -> memoryview | None:
        """See Landing."""
        del begin, end
        return None

    def put(self, begin: int, data: torch.Tensor) -> None:
        """See Landing."""
        if self._rows.device.type != "cpu":
            self._place(begin, data.to(self._rows.device, non_blocking=True))
        elif self._columns is None and not self._tensor.unpermute_heads:
            self._place(begin, data)
        else:
            for at in range(0, len(data), step := self._chunk()):
                self._place(begin + at, data[at : at + step])

    def _chunk(self) -> int:
        """Bytes of whole units."""
        return max(1, _CHUNK_BYTES // self.unit) * self.unit

    def _place(self, begin: int, raw: torch.Tensor) -> None:
        first, count = begin // self._row_bytes, len(raw) // self._row_bytes
        if self._tensor.unpermute_heads:
            raw = unpermute(raw.view(count, -1), count // self._head_rows).view(-1)
        if self._columns is not None:
            raw = raw.view(count, -1)[:, slice(*self._columns)].contiguous().view(-1)
        out = self._rows if self._num_rows == 1 else self._rows[first : first + count]
        with _made_on(out.device):
            decode_into(raw, self._tensor.dtype, out)
        if self._tensor.stored_offset:
            out.sub_(self._tensor.stored_offset)
        if self._codes is not None:
            copy_codes(raw, self._tensor.dtype, self._codes.rows(first, first + count))


class Gathered:
    """A part of a quantized weight, which is written when its last part has come."""

    unit = 1

    def __init__(
        self,
        placement: PartPlacement,
        rows: torch.Tensor,
        codes: GroupCodes | None,
        gathering: Gathering,
        without_codes: Callable[[], None],
    ) -> None:
        self._placement = placement
        self._rows = rows
        self._codes = codes
        self._gathering = gathering
        self._without_codes = without_codes
        self._raw: torch.Tensor | None = None
        self._lock = threading.Lock()

    def room(self, begin: int, end: int) -> memoryview | None:
        """On a CPU, the part's own memory."""
        raw = self._memory()
        return raw[begin:end].numpy().data if raw.device.type == "cpu" else None

    def put(self, begin: int, data: torch.Tensor) -> None:
        """See Landing."""
        self._memory()[begin : begin + len(data)].copy_(data, non_blocking=True)

    def finish(self) -> object:
        """All pieces are there. What is returned must stay until the work is done.

        Raises WeightLoadError when the parts contradict each other.
        """
        raw, self._raw = self._memory(), None
        with _made_on(self._rows.device):
            unpacked = self._gathering.add(self._placement, raw, self._spare())
            if unpacked is None:
                return None
            with self._whole(self._rows) as out:
                unpacked.write(out)
            if self._codes is None:
                return unpacked
            with self._whole_codes(self._codes) as all_codes:
                held = unpacked.write_codes(all_codes)
        if not held:
            log.warning(
                "codes_not_kept tensor=%s reason='scales or order do not fit the group format'",
                self._placement.whole.name,
            )
            self._without_codes()
        return unpacked

    def _memory(self) -> torch.Tensor:
        """Codes wait in the destination's own rows where they find room there."""
        with self._lock:
            if self._raw is None:
                num_bytes, spare = self._placement.tensor.num_bytes, self._spare()
                if self._placement.part == CODES and spare.numel() >= num_bytes:
                    self._raw = spare[:num_bytes]
                else:
                    self._raw = _empty(num_bytes, self._rows.device)
            return self._raw

    def _spare(self) -> torch.Tensor:
        return self._rows.view(-1).view(torch.uint8)

    @contextmanager
    def _whole(self, rows: torch.Tensor) -> Iterator[torch.Tensor]:
        """Where the whole weight goes; a rank's part is taken out of it afterwards."""
        cut = self._placement.cut
        if cut is None:
            yield rows
            return
        whole = torch.empty(self._placement.whole.shape, dtype=rows.dtype, device=rows.device)
        yield whole
        rows.copy_(whole[slice(*(cut.rows or (0, len(whole)))), slice(*cut.columns)])

    @contextmanager
    def _whole_codes(self, codes: GroupCodes) -> Iterator[GroupCodes]:
        cut = self._placement.cut
        if cut is None:
            yield codes
            return
        whole = empty_codes(self._placement.whole.shape, codes.bits)
        yield whole
        rows = slice(*(cut.rows or (0, len(whole.q))))
        first, end = cut.columns
        codes.q.copy_(whole.q[rows, first:end])
        codes.scale.copy_(whole.scale[rows, first // GROUP : end // GROUP])
        codes.minimum.copy_(whole.minimum[rows, first // GROUP : end // GROUP])


def _empty(num_bytes: int, device: torch.device) -> torch.Tensor:
    """Memory that any stream may use at once: what was freed on this one is no longer read."""
    made = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return made


def _made_on(device: torch.device) -> AbstractContextManager[object]:
    """New tensors, constants of a format too, are made on the device."""
    return nullcontext() if device.type == "cpu" else device


def natural_unit(placement: Placement) -> int:
    """Bytes of whole rows, of GGUF's q and k whole heads: where any landing may be cut."""
    if isinstance(placement, PartPlacement):
        return 1
    num_rows = _num_rows(placement)
    heads = placement.tensor.unpermute_heads
    head_rows = num_rows // heads if heads else 1
    return max(1, placement.tensor.num_bytes // num_rows * head_rows)


def _num_rows(placement: Placement) -> int:
    """Rows of equal bytes in the file; 1 where blocks run over rows."""
    num_rows = placement.rule.num_rows
    return 1 if placement.tensor.num_bytes % num_rows else num_rows


def is_as_it_is(placement: Placement, dtype: torch.dtype) -> bool:
    """Whether a tensor's bytes are those of its destination."""
    tensor = placement.tensor
    changed = tensor.unpermute_heads or tensor.stored_offset or placement.cut is not None
    return not changed and stored_dtype(tensor.dtype) == dtype


def unpermute(rows: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Undo llama.cpp's rotary row order: [heads, dim/2, 2] rows back to [heads, 2, dim/2].

    Rows are whole blocks in every file format, so bytes move as well as weights do.
    """
    split = rows.view(num_heads, -1, 2, *rows.shape[1:])
    return split.transpose(1, 2).reshape(rows.shape)


def host_bytes(data: memoryview) -> torch.Tensor:
    """The same memory as uint8 [bytes]; read-only memory too, which nobody here writes."""
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8))


def _byte_columns(placement: Placement, row_bytes: int) -> tuple[int, int] | None:
    if placement.cut is None:
        return None
    first, end = placement.cut.columns
    num_columns = placement.tensor.shape[-1]
    return first * row_bytes // num_columns, end * row_bytes // num_columns
