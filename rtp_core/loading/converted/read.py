"""Converted weights into parameters: bytes are copied as they are, or used where they lie."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from rtp_core.api import (
    LoadStats,
    ParameterSpec,
    Placement,
    TensorInfo,
    WeightLoader,
    WeightPlan,
    WeightRule,
    WeightTable,
)
from rtp_core.errors import WeightLoadError
from rtp_core.loading.converted.form import AGAIN, Conversion, code_names
from rtp_core.loading.mmap_loader import FileMap
from rtp_core.loading.objects.stand_in import file_bytes
from rtp_kernels.linear_weight import GROUP, GroupCodes, LinearWeight

_DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "U8": torch.uint8,
}
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedPlan(WeightPlan):
    """`coded` gives the bits of weights whose codes are placed beside their dense form."""

    coded: Mapping[str, int]


def plan_converted(
    table: WeightTable,
    tensors: Mapping[str, TensorInfo],
    *,
    with_codes: bool,
) -> ConvertedPlan:
    """Every parameter from the one tensor that is it. Raises WeightLoadError for any difference."""
    wanted: list[TensorInfo] = []
    coded: dict[str, int] = {}
    for parameter in table.parameters:
        wanted.append(_tensor(tensors, parameter))
        bits = next((n for n in (4, 8) if code_names(parameter.name, n)[0] in tensors), None)
        if with_codes and bits is not None:
            coded[parameter.name] = bits
            wanted.extend(_codes(tensors, parameter, bits))
    placements = tuple(
        Placement(one, WeightRule(one.name, one.name, 0, one.shape[0])) for one in wanted
    )
    files = {one.file for one in wanted}
    return ConvertedPlan(
        table.parameters, placements, {file: file_bytes(file) for file in files}, coded=coded
    )


def load_converted(
    plan: ConvertedPlan,
    loader: WeightLoader,
    device: str,
    progress: Callable[[int], None],
    into: Mapping[str, torch.Tensor] | None = None,
) -> tuple[dict[str, torch.Tensor | LinearWeight], LoadStats]:
    """All parameters by name. On a CPU those that a loader maps are not copied.

    `into` holds destinations that are filled instead of new ones.
    """
    sink = _Sink(plan, device, into or {})
    stats = loader.load(plan, sink, progress)
    return sink.parameters(plan), stats


class _Sink:
    """`api.WeightSink`; each tensor may arrive once, from any thread."""

    def __init__(self, plan: ConvertedPlan, device: str, into: Mapping[str, torch.Tensor]) -> None:
        self._device = device
        self._into = into
        self._waiting = {placement.tensor.name for placement in plan.placements}
        self._found: dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()

    def place(self, placement: Placement, data: memoryview) -> None:
        """See `api.WeightSink`. Pages of a file stay its own, so a tensor may lie in them."""
        tensor = placement.tensor
        with self._lock:
            if tensor.name not in self._waiting:
                raise WeightLoadError("placed twice", file=tensor.file, tensor=tensor.name)
            self._waiting.discard(tensor.name)
        if data.nbytes != tensor.num_bytes:
            raise WeightLoadError(
                f"{data.nbytes} bytes arrived, {tensor.num_bytes} belong to it",
                file=tensor.file,
                tensor=tensor.name,
            )
        raw = torch.frombuffer(data, dtype=torch.uint8)
        ready = self._into.get(tensor.name)
        if ready is not None:
            ready.view(-1).view(torch.uint8).copy_(raw)
            self._found[tensor.name] = ready
            return
        if not self._stays(data, raw):
            raw = torch.empty(len(raw), dtype=torch.uint8, device=self._device).copy_(raw)
        self._found[tensor.name] = raw.view(_DTYPES[tensor.dtype]).view(tensor.shape)

    def _stays(self, data: memoryview, raw: torch.Tensor) -> bool:
        mapped = isinstance(data.obj, FileMap) and self._device == "cpu"
        return mapped and raw.data_ptr() % _ALIGNMENT == 0

    def parameters(self, plan: ConvertedPlan) -> dict[str, torch.Tensor | LinearWeight]:
        """Raises WeightLoadError if one was not brought."""
        if self._waiting:
            raise WeightLoadError(f"the loader left out {', '.join(sorted(self._waiting)[:10])}")
        made: dict[str, torch.Tensor | LinearWeight] = {}
        for one in plan.parameters:
            dense = self._found[one.name]
            if one.name in plan.coded:
                bits = plan.coded[one.name]
                parts = (self._found[part] for part in code_names(one.name, bits))
                made[one.name] = LinearWeight(dense, GroupCodes(bits, *parts))
            else:
                made[one.name] = dense
        return made


def check_conversion(conversion: Conversion, dtype: str, setting: str) -> None:
    """Raises WeightLoadError if weights are asked for in another form than they were made in."""
    if conversion.dtype != dtype:
        raise WeightLoadError(
            f"converted for {conversion.dtype}, model.dtype asks for {dtype}",
            remedy=f"use --dtype {conversion.dtype}, or {AGAIN}",
        )
    if setting not in ("auto", conversion.weights):
        raise WeightLoadError(
            f"converted with weights {conversion.weights!r}, model.cpu_weights asks for {setting}",
            remedy=f"use model.cpu_weights = auto, or {AGAIN}",
        )


def _tensor(tensors: Mapping[str, TensorInfo], parameter: ParameterSpec) -> TensorInfo:
    names = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
    return _checked(tensors, parameter.name, names[parameter.dtype], parameter.shape)


def _codes(
    tensors: Mapping[str, TensorInfo], parameter: ParameterSpec, bits: int
) -> list[TensorInfo]:
    rows, columns = parameter.shape
    q, scale, minimum = code_names(parameter.name, bits)
    return [
        _checked(tensors, q, "U8", (rows, columns)),
        _checked(tensors, scale, "F16", (rows, columns // GROUP)),
        _checked(tensors, minimum, "F16", (rows, columns // GROUP)),
    ]


def _checked(
    tensors: Mapping[str, TensorInfo], name: str, dtype: str, shape: tuple[int, ...]
) -> TensorInfo:
    tensor = tensors.get(name)
    if tensor is None:
        raise WeightLoadError("missing", tensor=name, remedy=AGAIN)
    if (tensor.dtype, tensor.shape) != (dtype, shape) or not math.prod(shape):
        raise WeightLoadError(
            f"{tensor.dtype} {list(tensor.shape)}, the model wants {dtype} {list(shape)}",
            file=tensor.file,
            tensor=name,
            remedy=AGAIN,
        )
    return tensor
