"""Compilation cases of the experts' kernels, from the forms that launch them."""

from __future__ import annotations

from ahead_of_time import Case

from rtp_kernels.gpu.forms import power_of_2
from rtp_kernels.moe_gate_up_down.forms import WIDE, ExpertForm, Shape

FOLDER = "rtp_kernels.moe_gate_up_down."
QWEN3_30B_A3B = Shape(128, 8, 2048, 768)


def products(shape: Shape, form: ExpertForm, exact: bool) -> list[Case]:
    """The gated one and the one after it."""
    return [_product(shape, form, gated=True, out="*bf16"),
            _product(shape, form, gated=False, out="*fp32" if exact else "*bf16")]  # fmt: skip


def _product(shape, form, gated, out):
    tile = form.gate_up if gated else form.down
    types = dict.fromkeys(("order", "table"), "*i32")
    types |= {"x": "*bf16", "weight": "*bf16", "shares": "*fp32", "out": out, "tokens": "i32"}
    if tile.tiles:
        types["weight"] = f"tensordesc<bf16[{tile.block_n}, {tile.block_k}]>"
    constants = {
        "OUTPUTS": shape.width if gated else shape.hidden,
        "INPUTS": shape.hidden if gated else shape.width,
        "TOP_K": shape.top_k,
        "BLOCK_M": form.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "STAGES": tile.stages,
        "GATED": gated,
        "SWAPPED": form.block_m < WIDE,
        "TILES": tile.tiles,
        "PDL": True,
    }
    return Case(FOLDER + "tiles", "expert_product_kernel", types, constants, warps=tile.warps)


def routing(shape: Shape) -> list[Case]:
    """The kernels that choose and sort."""
    wide = power_of_2(shape.experts)
    scores = {"EXPERTS": shape.experts, "BLOCK": wide, "TOP_K": shape.top_k, "NORMALIZE": True}
    few = {**scores, "ROWS": 64, "SPLITS": 16, "BLOCK_M": 32, "PDL": True}
    pointers = {"logits": "*fp32", "shares": "*fp32", "tokens": "i32"}
    sorted_types = {**pointers, "order": "*i32", "table": "*i32"}
    chosen = {**pointers, "experts": "*i32", "ranks": "*i32", "counts": "*i32"}
    lone = {**pointers, "experts": "*i32"}
    one = {**scores, "ROWS": 1, "SPLITS": 1, "PDL": True}
    pairs = 32 * shape.top_k
    scan = {"counts": "*i32", "offsets": "*i32", "table": "*i32", "blocks": "i32"}
    place = {"experts": "*i32", "ranks": "*i32", "offsets": "*i32", "order": "*i32"}
    numbers = {"EXPERTS": shape.experts, "PDL": True}
    module = FOLDER + "routing"
    return [
        Case(module, "sort_few_kernel", sorted_types, few, warps=8),
        Case(module, "choose_kernel", chosen, {**one, "ROWS": 32}),
        Case(module, "choose_kernel", lone, {**one, "ranks": None, "counts": None}),
        Case(module, "scan_kernel", scan,
             {**numbers, "BLOCK": wide, "ROWS": 64, "BLOCK_M": 128}, warps=8),
        Case(module, "place_kernel", {**place, "pairs": "i32"},
             {**numbers, "PAIRS": pairs, "BLOCK": pairs}),
    ]  # fmt: skip


def one_token(shape: Shape) -> list[Case]:
    """The products of one token."""
    up = {"x": "*bf16", "norm": "*bf16", "weight": "*bf16", "experts": "*i32", "out": "*bf16"}
    down = {"hidden": "*bf16", "residual": "*bf16", "shares": "*fp32"}
    module = FOLDER + "one_token"
    return [
        Case(module, "gate_up_kernel", {**up, "eps": "fp32"},
             {"OUTPUTS": shape.width, "COLUMNS": shape.hidden, "BLOCK_N": 2, "BLOCK_K": 2048,
              "PDL": True}),
        Case(module, "down_kernel",
             {**down, **{name: up[name] for name in ("weight", "experts", "out")}},
             {"OUTPUTS": shape.hidden, "COLUMNS": shape.width, "TOP_K": 8, "CHOICES": 8,
              "BLOCK_N": 4, "BLOCK_K": 256, "PDL": True}),
    ]  # fmt: skip
