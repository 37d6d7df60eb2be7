"""Group codes of quantized files, kept as they are for operations that read them.

Q4_0, Q4_1 and Q8_0 store groups of 32 weights as codes with a float16 scale (and minimum);
`rtp_kernels.linear_weight` holds the same numbers in separate arrays, so nothing is rounded.
Quantized safetensors say themselves what codes hold them (`quantized.tensor`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from rtp_core.api import ParameterSpec, Placement, Shard, WeightPlan
from rtp_core.loading.quantized.tensor import PartPlacement
from rtp_kernels.linear_weight import GROUP, GroupCodes, LinearWeight, quantize

FILE_BITS: Mapping[str, int] = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}


def kept_bits(parameter: ParameterSpec, placements: Iterable[Placement]) -> int | None:
    """Bits of the codes that all parts of a linear weight share in the file; None if none."""
    bits = {_stored_bits(one) for one in placements}
    if not parameter.linear or len(bits) != 1 or parameter.shape[1] % GROUP:
        return None
    return bits.pop()


def _stored_bits(placement: Placement) -> int | None:
    if isinstance(placement, PartPlacement):
        return placement.whole.code_bits
    return FILE_BITS.get(placement.tensor.dtype)


def coded_parameters(plan: WeightPlan) -> dict[str, int]:
    """Linear weights that the file holds in groups of codes, with their bits."""
    parts: dict[str, list[Placement]] = {}
    for placement in plan.placements:
        parts.setdefault(placement.rule.destination, []).append(placement)
    bits = {one.name: kept_bits(one, parts[one.name]) for one in plan.parameters}
    return {name: one for name, one in bits.items() if one is not None}


def round_to_codes(
    parameters: Mapping[str, torch.Tensor | LinearWeight], plan: WeightPlan, bits: int
) -> dict[str, torch.Tensor | LinearWeight]:
    """Linear weights without codes get some of `bits`; heads, which decide tokens, 8.

    The dense form becomes what the codes say, so that many rows and few rows agree.
    """
    made = dict(parameters)
    for one in plan.parameters:
        weight = made[one.name]
        if isinstance(weight, LinearWeight) or not one.linear or one.shape[1] % GROUP:
            continue
        codes = quantize(weight, 8 if one.shard is Shard.VOCABULARY else bits)
        made[one.name] = LinearWeight(weight.copy_(codes.dense()), codes)
    return made


def empty_codes(shape: tuple[int, ...], bits: int) -> GroupCodes:
    """Room for the codes of an [out, in] weight."""
    groups = (shape[0], shape[1] // GROUP)
    return GroupCodes(
        bits,
        torch.empty(shape, dtype=torch.uint8),
        torch.empty(groups, dtype=torch.float16),
        torch.empty(groups, dtype=torch.float16),
    )


def copy_codes(raw: torch.Tensor, dtype: str, out: GroupCodes) -> None:
    """Fill `out` from the file's bytes (uint8, one dimension, rows in order)."""
    blocks = raw.view(*out.scale.shape, -1)
    codes = out.q.view(*out.scale.shape, GROUP)
    out.scale.copy_(blocks[..., :2].contiguous().view(torch.float16)[..., 0])
    if dtype == "Q8_0":
        codes.copy_(blocks[..., 2:] ^ 128)  # two's complement to offset binary
        torch.mul(out.scale, -128, out=out.minimum)
        return
    nibbles = blocks[..., -GROUP // 2 :]
    codes[..., : GROUP // 2] = nibbles & 15
    codes[..., GROUP // 2 :] = nibbles >> 4
    if dtype == "Q4_0":
        torch.mul(out.scale, -8, out=out.minimum)
    else:
        out.minimum.copy_(blocks[..., 2:4].contiguous().view(torch.float16)[..., 0])
