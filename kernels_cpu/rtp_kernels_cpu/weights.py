"""Weights of 4 or 8 bits in groups of 32 inputs, and their packed form.

weight = scale * (code - centre) + minimum, where centre is 8 for 4-bit codes without minimum
and 0 otherwise. That holds the GGUF types Q4_0 and Q8_0 (no minimum), Q4_1, and Q5_0 and Q5_1
as 8-bit codes, without loss. The packed layout is described in native/operations.h.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import torch

from rtp_kernels_cpu.library import WeightDescription

GROUP = 32
PANEL = 16


@dataclass(frozen=True, slots=True)
class WeightCodes:
    """A matrix [rows, columns]: codes uint8 (4 bits, 0 ... 15) or int8 (8 bits), scale and
    minimum (if any) float16 [rows, columns / 32]."""

    codes: torch.Tensor
    scale: torch.Tensor
    minimum: torch.Tensor | None = None

    @property
    def bits(self) -> int:
        """4 or 8."""
        return 8 if self.codes.dtype == torch.int8 else 4

    @property
    def centre(self) -> int:
        """What is taken from a code before scaling."""
        return 8 if self.bits == 4 and self.minimum is None else 0


@dataclass(frozen=True, slots=True, eq=False)
class PackedWeight:
    """Panels of 16 outputs, uint8 [panels, groups, bytes of a group].

    `parts` equal parts of `rows` are padded to whole panels separately. `address` is that of
    the description the library reads; both live as long as this object.
    """

    panels: torch.Tensor
    rows: int
    columns: int
    bits: int
    has_minimum: bool
    parts: int
    address: int = field(init=False, repr=False)
    _description: WeightDescription = field(init=False, repr=False)

    def __post_init__(self) -> None:
        description = WeightDescription(
            self.panels.data_ptr(), self.rows, self.columns, self.bits, self.has_minimum, self.parts
        )
        object.__setattr__(self, "_description", description)
        object.__setattr__(self, "address", ctypes.addressof(description))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), as of a dense weight."""
        return self.rows, self.columns


def pack(weight: WeightCodes, parts: int = 1) -> PackedWeight:
    """Packed copy of `weight`. `parts` is 2 for gate rows stacked on up rows.

    Raises ValueError when shapes or dtypes do not fit, for one if columns are no multiple of
    32: such a weight stays dense.
    """
    _check(weight, parts)
    rows, columns = weight.codes.shape
    codes = _padded(weight.codes, parts)
    four_inputs = codes.view(-1, PANEL, columns // GROUP, 8, 4).permute(0, 2, 3, 1, 4)
    if weight.bits == 8:
        packed = four_inputs.reshape(*four_inputs.shape[:2], 512).view(torch.uint8) ^ 128
    else:
        low, high = four_inputs.chunk(2, dim=2)
        packed = (low | (high << 4)).reshape(*four_inputs.shape[:2], 256)
    scalars = [weight.scale] if weight.minimum is None else [weight.scale, weight.minimum]
    tail = [_scalar_bytes(values, parts) for values in scalars]
    panels = torch.cat((packed, *tail), dim=2)
    return PackedWeight(panels, rows, columns, weight.bits, weight.minimum is not None, parts)


def unpack(weight: PackedWeight) -> WeightCodes:
    """The inverse of `pack`."""
    panels = weight.panels
    count, groups, _ = panels.shape
    code_bytes = 64 * weight.bits
    packed = panels[:, :, :code_bytes].reshape(count, groups, -1, PANEL, 4)
    if weight.bits == 4:
        packed = torch.cat((packed & 15, packed >> 4), dim=2)
    codes = packed.permute(0, 3, 1, 2, 4).reshape(count * PANEL, weight.columns)
    if weight.bits == 8:
        codes = (codes ^ 128).view(torch.int8)
    halves = panels[:, :, code_bytes:].contiguous().view(torch.float16)
    scalars = halves.view(count, groups, -1, PANEL).permute(2, 0, 3, 1).flatten(1, 2)
    kept = [_unpadded(values, weight) for values in (codes, *scalars)]
    return WeightCodes(kept[0], kept[1], kept[2] if weight.has_minimum else None)


def dequantize(weight: WeightCodes, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Dense [rows, columns]."""
    groups = weight.codes.float().unflatten(1, (-1, GROUP)) - weight.centre
    dense = groups * weight.scale.float()[..., None]
    if weight.minimum is not None:
        dense = dense + weight.minimum.float()[..., None]
    return dense.flatten(1).to(dtype)


def quantize(dense: torch.Tensor, bits: int) -> WeightCodes:
    """Nearest codes of a dense [rows, columns]: 4 bits between the extremes of each group, as
    Q4_1, or 8 bits symmetric, as Q8_0. Raises ValueError for other `bits` or odd columns."""
    if bits not in (4, 8):
        raise ValueError(f"bits must be 4 or 8, not {bits}")
    if dense.shape[1] % GROUP:
        raise ValueError(f"columns must be a multiple of {GROUP}, not {dense.shape[1]}")
    groups = dense.float().unflatten(1, (-1, GROUP))
    if bits == 8:
        scale = (groups.abs().amax(-1) / 127).half()
        codes = (groups / _divisor(scale)).round_().clamp_(-127, 127).to(torch.int8)
        return WeightCodes(codes.flatten(1), scale)
    low, high = groups.aminmax(dim=-1)
    scale, minimum = ((high - low) / 15).half(), low.half()
    steps = (groups - minimum.float()[..., None]) / _divisor(scale)
    codes = steps.round_().clamp_(0, 15).to(torch.uint8)
    return WeightCodes(codes.flatten(1), scale, minimum)


def _divisor(scale: torch.Tensor) -> torch.Tensor:
    """float32 with a last dimension of 1; 1 where the scale is 0."""
    wide = scale.float()
    return torch.where(wide == 0, 1.0, wide)[..., None]


def _check(weight: WeightCodes, parts: int) -> None:
    rows, columns = weight.codes.shape
    if weight.codes.dtype not in (torch.uint8, torch.int8):
        raise ValueError(f"codes must be uint8 (4 bits) or int8, not {weight.codes.dtype}")
    if columns % GROUP:
        raise ValueError(f"columns must be a multiple of {GROUP}, not {columns}: keep it dense")
    if not rows or not columns:
        raise ValueError(f"a weight of shape [{rows}, {columns}] is empty")
    if parts not in (1, 2) or rows % parts:
        raise ValueError(f"{rows} rows cannot be packed in {parts} parts (1, or 2 for gate and up)")
    for name, values in (("scale", weight.scale), ("minimum", weight.minimum)):
        wanted = (rows, columns // GROUP)
        if values is not None and (values.dtype != torch.float16 or values.shape != wanted):
            raise ValueError(
                f"{name} must be float16 {list(wanted)}, not {values.dtype} {list(values.shape)}"
            )
    if weight.bits == 4 and int(weight.codes.max()) > 15:
        raise ValueError("4-bit codes must be 0 ... 15; pass 8-bit codes as int8")


def _padded(values: torch.Tensor, parts: int) -> torch.Tensor:
    """Each part's rows padded with zeros to whole panels."""
    split = values.view(parts, -1, values.shape[1])
    short = -split.shape[1] % PANEL
    return torch.nn.functional.pad(split, (0, 0, 0, short)).flatten(0, 1)


def _unpadded(values: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
    split = values.view(weight.parts, -1, values.shape[1])
    return split[:, : weight.rows // weight.parts].flatten(0, 1).contiguous()


def _scalar_bytes(values: torch.Tensor, parts: int) -> torch.Tensor:
    """float16 [rows, groups] -> uint8 [panels, groups, 32]."""
    padded = _padded(values, parts)
    grouped = padded.view(-1, PANEL, values.shape[1]).transpose(1, 2).contiguous()
    return grouped.view(torch.uint8)
