"""Sampling state of a batch on the device: what a draw must know of each sequence."""

# Launches of kernels:
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rtp_kernels.gpu.launch import enqueue
from rtp_kernels.sampling.record import (
    NO_TOKEN,
    WORDS,
    SlotEntry,
    counted_tokens,
    special_tokens,
    words,
)
from rtp_kernels.sampling.tables import HEADER, install

_WIDTH = HEADER + WORDS
_BLOCK = 1024
_FEWEST_SPECIALS = 64


class SamplerSlots:
    """Sampling state of up to `num_slots` sequences on the device; one slot a sequence.

    records int32 [slots, 16]; special_ids int32 and special_bias float32 [slots, capacity];
    counts int16 [slots, vocabulary], allocated when the first sequence with penalties joins.
    `generation` changes whenever a table moves: graphs captured before it must be captured again.
    `reserve` makes that unnecessary.
    """

    def __init__(self, num_slots: int, vocab_size: int, device: torch.device | str) -> None:
        self.num_slots = num_slots
        self.vocab_size = vocab_size
        self.device = torch.device(device)
        self.generation = 0
        self.capacity = _FEWEST_SPECIALS
        self.records = self._table(WORDS)
        self.special_ids = self._table(self.capacity)
        self.special_bias = self._table(self.capacity, torch.float32)
        self.counts = torch.zeros(16, dtype=torch.int16, device=self.device)
        self._counting = False

    @property
    def counts_stride(self) -> int:
        """Counts a slot, a multiple of 16; 0 before there are any."""
        return self._whole_stride if self._counting else 0

    @property
    def _whole_stride(self) -> int:
        return -(-self.vocab_size // 16) * 16

    def reserve(self, *, specials: int = 0, counting: bool = False) -> None:
        """Room for `specials` biased and stop tokens a sequence, and for penalties."""
        if specials > self.capacity:
            self._widen(specials)
        if counting and not self._counting:
            # Memory first: without it everything stays as it was.
            self.counts = self._table(self._whole_stride, torch.int16)
            self._counting = True
            self.generation += 1

    def put(self, entries: Sequence[SlotEntry]) -> None:
        """Sequences that join: one transfer from pinned memory for all of them, no waiting.

        Raises ValueError for a slot that does not exist or comes twice.
        """
        if not entries:
            return
        self._check([entry.slot for entry in entries])
        specials = [special_tokens(entry, self.vocab_size) for entry in entries]
        self.reserve(
            specials=max(map(len, specials)), counting=any(entry.penalised for entry in entries)
        )
        transfer = self._transfer(_packed(entries, specials, self.vocab_size))
        enqueue(
            install,
            (len(entries),),
            transfer,
            self.records,
            self.counts,
            self.counts_stride,
            self.special_ids,
            self.special_bias,
            CAPACITY=self.capacity,
            WIDTH=_WIDTH,
            BLOCK=_BLOCK,
        )

    def clear(self, slots: Sequence[int]) -> None:
        """Slots draw the argmax from now on, and remember nothing."""
        self.put([SlotEntry(slot) for slot in slots])

    def _table(self, width: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.zeros(self.num_slots, width, dtype=dtype, device=self.device)

    def _widen(self, specials: int) -> None:
        held, capacity = self.capacity, 1 << (specials - 1).bit_length()
        ids, bias = self._table(capacity), self._table(capacity, torch.float32)
        ids[:, :held] = self.special_ids
        bias[:, :held] = self.special_bias
        self.special_ids, self.special_bias, self.capacity = ids, bias, capacity
        self.generation += 1

    def _check(self, slots: Sequence[int]) -> None:
        wrong = [slot for slot in slots if not 0 <= slot < self.num_slots]
        if wrong:
            raise ValueError(
                f"slot {wrong[0]} does not exist: there are {self.num_slots}, counted from 0"
            )
        if len(set(slots)) < len(slots):
            raise ValueError(f"a slot comes twice in {list(slots)}: put one sequence into each")

    def _transfer(self, packed: np.ndarray) -> torch.Tensor:
        if self.device.type != "cuda":
            return torch.from_numpy(packed)
        # A block of its own: torch keeps it until the copy has been made.
        pinned = torch.empty(len(packed), dtype=torch.int32, pin_memory=True)
        pinned.numpy()[:] = packed
        return pinned.to(self.device, non_blocking=True)


def _packed(
    entries: Sequence[SlotEntry],
    specials: Sequence[Sequence[tuple[int, float]]],
    vocab_size: int,
) -> np.ndarray:
    """int32: headers and records of all entries, then their lists of pairs."""
    headers = np.zeros((len(entries), _WIDTH), dtype=np.int32)
    parts = [headers.reshape(-1)]
    at = headers.size
    for header, entry, special in zip(headers, entries, specials, strict=True):
        counted = np.array(counted_tokens(entry, vocab_size), dtype=np.int32).reshape(-1)
        biased = np.empty((len(special), 2), dtype=np.int32)
        biased[:, 0] = [token for token, _ in special]
        biased[:, 1] = np.array([more for _, more in special], dtype=np.float32).view(np.int32)
        middle = at + biased.size
        header[:HEADER] = (
            entry.slot, entry.penalised, at, len(special), middle, len(counted) // 2,
        )  # fmt: skip
        header[HEADER:] = words(entry, vocab_size, len(special))
        parts += [biased.reshape(-1), counted]
        at = middle + len(counted)
    if at > NO_TOKEN:
        raise ValueError(f"{at} words of sampling state at once: put fewer sequences")
    return np.concatenate(parts)
