"""The kernels of `paged_attention`, with the work space that all layers and steps share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from rtp_kernels.paged_attention import decode, ragged
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.tables import Scratch, StepTables
from rtp_kernels.step_attention.reference import HeadNorms, Planes, StepAttention


class TritonStepAttention:
    """See `reference.StepAttention`; one stream at a time."""

    def __init__(self) -> None:
        self._scratch: Scratch | None = None

    def reserve(
        self,
        geometries: Sequence[Geometry],
        shapes: Iterable[tuple[int, int, int]],
        device: torch.device | str,
    ) -> None:
        """See `StepAttention`; captured launches keep the addresses."""
        shapes = tuple(shapes)
        found = [Scratch.for_steps(geometry, shapes, device) for geometry in geometries]
        self._scratch = Scratch(
            max((one.partial for one in found), key=len),
            max((one.stats for one in found), key=len),
            max((one.counters for one in found), key=len),
        )

    def decode(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        norms: HeadNorms | None,
        context: int,
    ) -> torch.Tensor:
        """One kernel."""
        if self._scratch is None:
            raise RuntimeError("reserve work space before the first step")
        new_tokens = qkv.shape[0] // tables.lengths.shape[0]
        return decode.decode(
            qkv, planes, tables, geometry, norms, new_tokens, self._scratch, context=context
        )

    def store(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        norms: HeadNorms | None,
        max_new: int,
    ) -> None:
        """One kernel."""
        ragged.store(qkv, planes, tables, geometry, norms, max_new)

    def ragged(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        max_new: int,
    ) -> torch.Tensor:
        """One kernel."""
        return ragged.ragged(qkv, planes, tables, geometry, max_new)

    def reset(self) -> None:
        """Counters of split keys may have stopped half way."""
        if self._scratch is not None:
            self._scratch.reset()


def bind(dtype: str) -> StepAttention:
    """Same for every half precision."""
    del dtype
    return TritonStepAttention()
