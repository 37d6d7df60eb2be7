"""Parts of quantized tensors, kept until the last one of a tensor has come.

Parts of one tensor may lie anywhere: safetensors files are sorted by dtype, so that all codes
of a file come before all scales. Codes that come early wait in the destination's own rows,
which are larger than they are; only the small parts take memory, and that of a tensor is
released with it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch

from rtp_core.errors import WeightLoadError
from rtp_core.loading.quantized.tensor import CODES, PartPlacement, Parts, Unpacked, typed


@dataclass(slots=True)
class _Tensor:
    """Bytes by part; `missing` counts those that are to come."""

    missing: int
    bytes: dict[str, torch.Tensor] = field(default_factory=dict)


class Gathering:
    """Any thread may bring any part of any tensor; each part comes once."""

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, int], _Tensor] = {}
        self._lock = threading.Lock()

    def add(
        self, placement: PartPlacement, raw: torch.Tensor, rows: torch.Tensor
    ) -> Unpacked | None:
        """The whole weight once this part, whose bytes are `raw`, completes it.

        `raw` is kept; codes may lie in the `rows` of the destination, which are not written yet.
        Raises WeightLoadError when the parts contradict each other.
        """
        key = (placement.rule.destination, placement.rule.row_offset)
        with self._lock:
            waiting = self._tensors.setdefault(key, _Tensor(len(placement.whole.parts)))
            waiting.bytes[placement.part] = raw
            waiting.missing -= 1
            if waiting.missing:
                return None
            del self._tensors[key]
        return _unpacked(placement, waiting.bytes, rows)

    @property
    def held_bytes(self) -> int:
        """Memory of the parts that wait, codes in their destination not counted."""
        with self._lock:
            return sum(
                part.nbytes
                for waiting in self._tensors.values()
                for name, part in waiting.bytes.items()
                if name != CODES
            )


def _unpacked(
    placement: PartPlacement, found: dict[str, torch.Tensor], rows: torch.Tensor
) -> Unpacked:
    whole = placement.whole
    if found[CODES].untyped_storage().data_ptr() == rows.untyped_storage().data_ptr():
        found[CODES] = found[CODES].clone()  # its rows are about to be written
    parts: Parts = {name: typed(found[name], info) for name, info in whole.parts.items()}
    try:
        return whole.unpack(parts)
    except ValueError as error:
        raise WeightLoadError(str(error), file=whole.file, tensor=whole.name) from error
