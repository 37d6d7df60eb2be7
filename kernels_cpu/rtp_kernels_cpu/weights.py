"""Weights as the library reads them: packed codes of 4 and 8 bits, or bfloat16 as it is.

`rtp_kernels.linear_weight.GroupCodes` defines the format, weight = scale * code + minimum. Its
codes and float16 numbers are kept as they are; a minimum that is -8 times (4 bits) or -128
times (8 bits) the scale, as in GGUF's Q4_0 and Q8_0, is not stored. The layout is described in
native/operations.h.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import torch

from rtp_kernels.linear_weight import GROUP, GroupCodes
from rtp_kernels_cpu.library import WeightDescription

PANEL = 16
_CENTRES = {4: 8, 8: 128}


@dataclass(frozen=True, slots=True, eq=False)
class PackedWeight:
    """Panels of 16 outputs, uint8 [panels, groups, bytes of a group]; with 16 bits the dense
    bfloat16 [rows, columns].

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
    def centre(self) -> int:
        """What is taken from a code before scaling, where no minimum is stored."""
        return 0 if self.has_minimum else _CENTRES.get(self.bits, 0)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), as of a dense weight."""
        return self.rows, self.columns


def pack(codes: GroupCodes, parts: int = 1) -> PackedWeight:
    """Packed copy of `codes`. `parts` is 2 for gate rows stacked on up rows.

    Raises ValueError when shapes or dtypes do not fit, for one if columns are no multiple of
    32: such a weight stays dense.
    """
    _check(codes, parts)
    rows, columns = codes.q.shape
    four_inputs = _padded(codes.q, parts).view(-1, PANEL, columns // GROUP, 8, 4)
    packed = four_inputs.permute(0, 2, 3, 1, 4)
    if codes.bits == 4:
        low, high = packed.chunk(2, dim=2)
        packed = low | (high << 4)
    scalars = [codes.scale]
    if has_minimum := not torch.equal(codes.minimum, codes.scale * -_CENTRES[codes.bits]):
        scalars.append(codes.minimum)
    tail = [_scalar_bytes(values, parts) for values in scalars]
    panels = torch.cat((packed.flatten(2), *tail), dim=2)
    return PackedWeight(panels, rows, columns, codes.bits, has_minimum, parts)


def borrow(weight: torch.Tensor, parts: int = 1) -> PackedWeight:
    """A dense bfloat16 [rows, columns] as a weight of the library: nothing is copied.

    Raises ValueError for another dtype or layout and for columns no multiple of 32.
    """
    if weight.dtype != torch.bfloat16 or weight.dim() != 2 or not weight.is_contiguous():
        raise ValueError(f"expected a contiguous bfloat16 matrix, not {weight.dtype}")
    rows, columns = weight.shape
    _check_shape(rows, columns, parts)
    return PackedWeight(weight, rows, columns, 16, has_minimum=False, parts=parts)


def unpack(weight: PackedWeight) -> GroupCodes:
    """The inverse of `pack`."""
    panels = weight.panels
    count, groups, _ = panels.shape
    code_bytes = 64 * weight.bits
    packed = panels[:, :, :code_bytes].reshape(count, groups, -1, PANEL, 4)
    if weight.bits == 4:
        packed = torch.cat((packed & 15, packed >> 4), dim=2)
    q = packed.permute(0, 3, 1, 2, 4).reshape(count * PANEL, weight.columns)
    halves = panels[:, :, code_bytes:].contiguous().view(torch.float16)
    scalars = halves.view(count, groups, -1, PANEL).permute(2, 0, 3, 1).flatten(1, 2)
    scale = _unpadded(scalars[0], weight)
    minimum = _unpadded(scalars[1], weight) if weight.has_minimum else scale * -weight.centre
    return GroupCodes(weight.bits, _unpadded(q, weight), scale, minimum)


def _check(codes: GroupCodes, parts: int) -> None:
    rows, columns = codes.q.shape
    if codes.bits not in _CENTRES or codes.q.dtype != torch.uint8:
        raise ValueError(f"codes must be uint8 of 4 or 8 bits, not {codes.q.dtype} of {codes.bits}")
    _check_shape(rows, columns, parts)
    for name, values in (("scale", codes.scale), ("minimum", codes.minimum)):
        wanted = (rows, columns // GROUP)
        if values.dtype != torch.float16 or values.shape != wanted:
            raise ValueError(
                f"{name} must be float16 {list(wanted)}, not {values.dtype} {list(values.shape)}"
            )
    if codes.bits == 4 and int(codes.q.max()) > 15:
        raise ValueError("4-bit codes must be 0 ... 15")


def _check_shape(rows: int, columns: int, parts: int) -> None:
    if not rows or not columns:
        raise ValueError(f"a weight of shape [{rows}, {columns}] is empty")
    if columns % GROUP:
        raise ValueError(f"columns must be a multiple of {GROUP}, not {columns}: keep it dense")
    if parts not in (1, 2) or rows % parts:
        raise ValueError(f"{rows} rows cannot be in {parts} parts (1, or 2 for gate and up)")


def _padded(values: torch.Tensor, parts: int) -> torch.Tensor:
    """Each part's rows padded with zeros to whole panels."""
    split = values.view(parts, -1, values.shape[1])
    short = -split.shape[1] % PANEL
    if not short:
        return values
    return torch.nn.functional.pad(split, (0, 0, 0, short)).flatten(0, 1)


def _unpadded(values: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
    split = values.view(weight.parts, -1, values.shape[1])
    return split[:, : weight.rows // weight.parts].flatten(0, 1).contiguous()


def _scalar_bytes(values: torch.Tensor, parts: int) -> torch.Tensor:
    """float16 [rows, groups] -> uint8 [panels, groups, 32]."""
    padded = _padded(values, parts)
    grouped = padded.view(-1, PANEL, values.shape[1]).transpose(1, 2).contiguous()
    return grouped.view(torch.uint8)
