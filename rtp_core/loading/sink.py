"""The receiving end of a loader: undo what the file did to weights, join parts, keep codes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from rtp_core.api import Placement, WeightPlan
from rtp_core.errors import WeightLoadError
from rtp_core.loading.codes import coded_parameters, empty_codes
from rtp_core.loading.gathering import Gathering
from rtp_core.loading.landing import (
    AsIs,
    Decoded,
    Gathered,
    Landing,
    host_bytes,
    is_as_it_is,
)
from rtp_core.loading.quantized.tensor import PartPlacement
from rtp_core.loading.transfer import Fence, Transfer, transfers_to
from rtp_kernels.linear_weight import GroupCodes, LinearWeight

Parameters = dict[str, torch.Tensor | LinearWeight]
"""By destination name."""


def allocate(plan: WeightPlan, device: str) -> dict[str, torch.Tensor]:
    """Every destination, not filled yet but for rows of zeros."""
    made = {
        one.name: torch.empty(one.shape, dtype=getattr(torch, one.dtype), device=device)
        for one in plan.parameters
    }
    for name, (first, end) in plan.zero_rows.items():
        made[name][first:end].zero_()
    return made


@dataclass(slots=True)
class _Arrival:
    """What is to come of one placement, and the fences of what has."""

    landing: Landing
    missing: int
    fences: list[Fence] = field(default_factory=list)


class TensorSink:
    """Allocates every destination once; each byte may arrive once, from any thread.

    It is an `api.WeightSink` and an `api.PieceSink`. `into` holds destinations that `allocate`
    made before, `transfers` makes each thread's way to the device.
    """

    def __init__(
        self,
        plan: WeightPlan,
        device: str,
        *,
        keep_codes: bool = False,
        into: Mapping[str, torch.Tensor] | None = None,
        transfers: Callable[[], Transfer] | None = None,
    ) -> None:
        self._parameters = allocate(plan, device) if into is None else dict(into)
        self._codes = _room_for_codes(plan) if keep_codes else {}
        self._gathering = Gathering()
        self._arrivals = {
            _key(one): _Arrival(self._landing(one), one.tensor.num_bytes) for one in plan.placements
        }
        self._waiting = set(self._arrivals)
        self._dense_only: set[str] = set()
        self._lock = threading.Lock()
        self._transfers = transfers or transfers_to(device)
        self._own = threading.local()

    def unit(self, placement: Placement) -> int:
        """See `api.PieceSink`."""
        return self._arrivals[_key(placement)].landing.unit

    def lane(self) -> SinkLane:
        """See `api.PieceSink`."""
        return SinkLane(self, self._transfers())

    def place(self, placement: Placement, data: memoryview) -> None:
        """`data` holds the tensor's bytes; it may be reused after return."""
        tensor = placement.tensor
        if data.nbytes != tensor.num_bytes:
            raise WeightLoadError(
                f"{data.nbytes} bytes arrived, {tensor.num_bytes} belong to it",
                file=tensor.file,
                tensor=tensor.name,
            )
        lane = getattr(self._own, "lane", None)
        if lane is None:
            lane = self._own.lane = self.lane()
        lane.put(placement, 0, data)
        if (fence := lane.fence()) is not None:
            fence()

    def parameters(self) -> Parameters:
        """All destinations. Raises WeightLoadError if one was not filled."""
        if self._waiting:
            names = ", ".join(sorted({name for name, *_ in self._waiting})[:10])
            raise WeightLoadError(f"the loader left out {names}")
        coded = {
            name: LinearWeight(self._parameters[name], codes)
            for name, codes in self._codes.items()
            if name not in self._dense_only
        }
        return {**self._parameters, **coded}

    def arrival(self, placement: Placement) -> _Arrival:
        """What is known of a placement."""
        return self._arrivals[_key(placement)]

    def arrive(self, placement: Placement, num_bytes: int, fence: Fence | None) -> bool:
        """Count bytes; True once, when all of the tensor are there."""
        key = _key(placement)
        arrival = self._arrivals[key]
        with self._lock:
            if key not in self._waiting or num_bytes > arrival.missing:
                raise WeightLoadError(
                    "placed twice", file=placement.tensor.file, tensor=placement.tensor.name
                )
            arrival.missing -= num_bytes
            if fence is not None:
                arrival.fences.append(fence)
            if not arrival.missing:
                self._waiting.discard(key)
            return not arrival.missing

    def _landing(self, placement: Placement) -> Landing:
        rule = placement.rule
        begin, end = rule.row_offset, rule.row_offset + rule.num_rows
        rows = self._parameters[rule.destination][begin:end]
        codes = self._codes.get(rule.destination)
        codes = None if codes is None else codes.rows(begin, end)
        if isinstance(placement, PartPlacement):
            without_codes = lambda: self._dense_only.add(rule.destination)  # noqa: E731
            return Gathered(placement, rows, codes, self._gathering, without_codes)
        if codes is None and is_as_it_is(placement, rows.dtype):
            return AsIs(rows)
        return Decoded(placement, rows, codes)


class SinkLane:
    """`api.Lane` into a TensorSink."""

    def __init__(self, sink: TensorSink, transfer: Transfer) -> None:
        self._sink = sink
        self._transfer = transfer

    def buffer(self, num_bytes: int) -> memoryview:
        """See `api.Lane`."""
        return self._transfer.buffer(num_bytes).numpy().data

    def room(self, placement: Placement, begin: int, end: int) -> memoryview | None:
        """See `api.Lane`."""
        return self._sink.arrival(placement).landing.room(begin, end)

    def put(self, placement: Placement, begin: int, data: memoryview) -> None:
        """See `api.Lane`."""
        landing = self._sink.arrival(placement).landing
        self._transfer.submit(lambda: landing.put(begin, host_bytes(data)))
        self._arrived(placement, data.nbytes)

    def filled(self, placement: Placement, num_bytes: int) -> None:
        """See `api.Lane`."""
        self._arrived(placement, num_bytes)

    def fence(self) -> Fence | None:
        """See `api.Lane`."""
        return self._transfer.fence()

    def _arrived(self, placement: Placement, num_bytes: int) -> None:
        """The thread that brings the last piece of what must be joined waits for the others."""
        arrival = self._sink.arrival(placement)
        landing = arrival.landing
        if not isinstance(landing, Gathered):
            self._sink.arrive(placement, num_bytes, None)
            return
        if not self._sink.arrive(placement, num_bytes, self._transfer.fence()):
            return
        for fence in arrival.fences:
            fence()
        kept: list[object] = []
        self._transfer.submit(lambda: kept.append(landing.finish()))
        if (fence := self._transfer.fence()) is not None:
            fence()


def _key(placement: Placement) -> tuple[str, int, str]:
    part = placement.part if isinstance(placement, PartPlacement) else ""
    return placement.rule.destination, placement.rule.row_offset, part


def _room_for_codes(plan: WeightPlan) -> dict[str, GroupCodes]:
    kept = coded_parameters(plan)
    made = {
        one.name: empty_codes(one.shape, kept[one.name])
        for one in plan.parameters
        if one.name in kept
    }
    for name, (first, end) in plan.zero_rows.items():
        if name in made:
            codes = made[name].rows(first, end)
            for part in (codes.q, codes.scale, codes.minimum):
                part.zero_()
    return made
