"""Quantized files keep their own codes beside the dense weights; nothing is rounded again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtp_core.api import ParameterSpec, Placement, Shard, TensorInfo, WeightPlan, WeightRule
from rtp_core.loading.codes import coded_parameters, copy_codes, empty_codes, round_to_codes
from rtp_core.loading.dequantize import decode_into
from rtp_core.loading.sink import TensorSink
from rtp_kernels.linear_weight import LinearWeight

gguf = pytest.importorskip("gguf")
KINDS = ("Q4_0", "Q4_1", "Q8_0")


def file_bytes(kind: str, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    packed = gguf.quantize(values, getattr(gguf.GGMLQuantizationType, kind))
    return torch.from_numpy(np.ascontiguousarray(packed).reshape(-1))


@pytest.mark.parametrize("kind", KINDS)
def test_codes_mean_exactly_what_the_dense_form_means(kind):
    raw = file_bytes(kind, 8, 96)
    dense = torch.empty(8, 96)
    decode_into(raw, kind, dense)
    codes = empty_codes((8, 96), 8 if kind == "Q8_0" else 4)
    copy_codes(raw, kind, codes)
    torch.testing.assert_close(codes.dense(), dense, rtol=1e-6, atol=1e-6)


def plan_of(*kinds: str, linear: bool = True, columns: int = 64) -> WeightPlan:
    sizes = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34, "F32": 128}
    placements = tuple(
        Placement(
            TensorInfo(f"part{n}", "f", 0, 4 * columns // 32 * sizes[kind], (4, columns), kind),
            WeightRule(f"part{n}", "w", 4 * n, 4),
        )
        for n, kind in enumerate(kinds)
    )
    spec = ParameterSpec("w", (4 * len(kinds), columns), "bfloat16", Shard.ROWS, linear)
    return WeightPlan((spec,), placements, {"f": 0})


@pytest.mark.parametrize(
    ("plan", "bits"),
    [
        (plan_of("Q4_0", "Q4_1"), 4),
        (plan_of("Q8_0"), 8),
        (plan_of("Q4_1", "Q8_0"), None),
        (plan_of("Q4_1", "F32"), None),
        (plan_of("Q4_1", linear=False), None),
    ],
)
def test_codes_are_kept_where_all_parts_of_a_linear_weight_have_the_same_width(plan, bits):
    assert coded_parameters(plan).get("w") == bits


def test_the_sink_keeps_the_codes_of_fused_parts_by_row():
    plan = plan_of("Q4_1", "Q4_1")
    sink = TensorSink(plan, "cpu", keep_codes=True)
    for number, placement in enumerate(plan.placements):
        raw = file_bytes("Q4_1", 4, 64, seed=number)
        sink.place(placement, memoryview(raw.numpy()))
    weight = sink.parameters()["w"]
    assert isinstance(weight, LinearWeight)
    torch.testing.assert_close(weight.codes.dense().bfloat16(), weight.dense, rtol=0.01, atol=0.01)


def test_without_asking_no_codes_are_kept():
    plan = plan_of("Q4_1")
    sink = TensorSink(plan, "cpu")
    sink.place(plan.placements[0], memoryview(file_bytes("Q4_1", 4, 64).numpy()))
    assert isinstance(sink.parameters()["w"], torch.Tensor)


def test_rounding_makes_dense_and_codes_agree_and_gives_heads_8_bits():
    plan = WeightPlan(
        (
            ParameterSpec("w", (4, 64), "bfloat16", Shard.ROWS, linear=True),
            ParameterSpec("head", (4, 64), "bfloat16", Shard.VOCABULARY, linear=True),
            ParameterSpec("norm", (64,), "bfloat16"),
            ParameterSpec("odd", (4, 40), "bfloat16", Shard.ROWS, linear=True),
        ),
        (),
        {},
    )
    parameters = {one.name: torch.randn(one.shape).bfloat16() for one in plan.parameters}
    made = round_to_codes(parameters, plan, 4)
    assert [made["w"].codes.bits, made["head"].codes.bits] == [4, 8]
    assert isinstance(made["norm"], torch.Tensor)
    assert isinstance(made["odd"], torch.Tensor)
    assert torch.equal(made["w"].dense, made["w"].codes.dense().bfloat16())
