"""Compilation cases of the linear operations, from the configurations that choose them."""

from __future__ import annotations

from ahead_of_time import Case

from rtp_kernels.gpu.forms import Form, Gemv, Swapped, power_of_2

QWEN3_8B = {
    ("norm_linear", 6144, 4096),
    ("linear_residual", 4096, 4096),
    ("norm_gate_up", 24576, 4096),
    ("linear_residual", 4096, 12288),
    ("head", 151936, 4096),
}
SMOLLM2_135M = {
    ("norm_linear", 960, 576),
    ("linear_residual", 576, 576),
    ("norm_gate_up", 3072, 576),
    ("linear_residual", 576, 1536),
    ("head", 49152, 576),
}


def case_of(operation: str, outputs: int, inputs: int, rows: int, form: Form) -> Case | None:
    """None where no kernel of ours multiplies."""
    activation = "silu" if operation == "norm_gate_up" else "none"
    width = outputs // 2 if operation == "norm_gate_up" else outputs
    out = "*fp32" if operation == "head" else "*bf16"
    if isinstance(form, Gemv):
        return _gemv(operation, width, inputs, form, activation, out)
    if isinstance(form, Swapped):
        return _swapped(width, inputs, rows, form, activation, out)
    return None


def _gemv(operation, width, inputs, form, activation, out):
    used = {"x": "*bf16", "weight": "*bf16", "out": out, "eps": "fp32"}
    unused = {"bias": None}
    for name, where in (("norm", operation != "linear_residual"), ("residual", True)):
        if where and (name == "norm" or operation == "linear_residual"):
            used[name] = "*bf16"
        else:
            unused[name] = None
    constants = {
        **unused,
        "OUTPUTS": width,
        "COLUMNS": inputs,
        "BLOCK_N": form.block_n,
        "BLOCK_K": form.block_k,
        "UNROLL": form.unroll,
        "ACTIVATION": activation,
        "PDL": True,
    }
    return Case("rtp_kernels.gpu.gemv", "gemv_kernel", used, constants, warps=form.warps)


def _swapped(width, inputs, rows, form, activation, out):
    block_m = max(16, power_of_2(rows))
    types = {"x": "*bf16", "weight": "*bf16", "prefetched": "*bf16", "count": "i32"}
    if form.tiles:
        types["x"] = f"tensordesc<bf16[{block_m}, {form.block_k}]>"
        types["weight"] = f"tensordesc<bf16[{form.block_n}, {form.block_k}]>"
    types["out"] = "*fp32" if form.splits > 1 else out
    constants = {
        "bias": None,
        "OUTPUTS": width,
        "INPUTS": inputs,
        "BLOCK_M": block_m,
        "BLOCK_N": form.block_n,
        "BLOCK_K": form.block_k,
        "SPLITS": form.splits,
        "STAGES": form.stages,
        "ACTIVATION": activation,
        "TILES": form.tiles,
        "PREFETCH": form.prefetch,
        "PDL": True,
    }
    module, kernel = "rtp_kernels.gpu.swapped_gemm", "swapped_gemm_kernel"
    return Case(module, kernel, types, constants, warps=form.warps)
