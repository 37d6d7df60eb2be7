"""Mixture of experts: routing, the CPU form against the definition, float32 bits of a row."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rtp_kernels.moe_gate_up_down.reference import choose_experts
from rtp_kernels.registry import resolve

EPS = 1e-6
TOLERANCE = {"float32": (1e-5, 1e-5), "bfloat16": (5e-2, 5e-2)}


def random(*shape, dtype="float32", seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (torch.randn(*shape, generator=generator) * scale).to(getattr(torch, dtype))


def arguments(rows, experts=8, hidden=48, width=40, dtype="float32"):
    weights = (
        random(experts, hidden, dtype=dtype, seed=2, scale=2 * hidden**-0.5),
        random(experts, 2 * width, hidden, dtype=dtype, seed=3, scale=hidden**-0.5),
        random(experts, hidden, width, dtype=dtype, seed=4, scale=width**-0.5),
    )
    x, norm = random(rows, hidden, dtype=dtype), random(hidden, dtype=dtype, seed=1)
    return x, norm, EPS, weights


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("rows", "top_k"), [(1, 1), (1, 8), (5, 2), (90, 3)])
def test_cpu_form_equals_the_definition(rows, top_k, normalize, dtype):
    given = arguments(rows, dtype=dtype)
    expected = resolve("moe_gate_up_down", "any", dtype)(*given, top_k, normalize)
    got = resolve("moe_gate_up_down", "cpu", dtype)(*given, top_k, normalize)
    absolute, relative = TOLERANCE[dtype]
    assert got.dtype == given[0].dtype
    torch.testing.assert_close(got, expected, atol=absolute, rtol=relative)


def test_all_experts_together_are_the_mean_weighed_by_softmax():
    x, norm, eps, (router, gate_up, down) = arguments(6, experts=3)
    normed = functional.rms_norm(x, norm.shape, norm, eps)
    shares = (normed @ router.T).softmax(-1)
    expected = x.clone()
    for expert in range(3):
        gate, up = (normed @ gate_up[expert].T).chunk(2, dim=-1)
        expected += shares[:, expert, None] * (functional.silu(gate) * up @ down[expert].T)
    for normalize in (True, False):
        got = resolve("moe_gate_up_down", "any", "float32")(
            x, norm, eps, (router, gate_up, down), 3, normalize
        )
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_shares_are_probabilities_over_all_experts_unless_normalized():
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.bfloat16)
    probabilities = scores.float().softmax(-1)
    shares, experts = choose_experts(scores, 2, normalize=False)
    assert shares.dtype == torch.float32
    assert experts.tolist() == [[0, 1]]
    torch.testing.assert_close(shares, probabilities[:, :2])
    shares, _ = choose_experts(scores, 2, normalize=True)
    torch.testing.assert_close(shares, probabilities[:, :2] / probabilities[:, :2].sum())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_float32_rows_have_the_same_bits_in_any_company(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    run = resolve("moe_gate_up_down", "cpu", "float32")
    x, *rest = arguments(200)
    try:
        whole = run(x, *rest, 3, True)
        for rows in (1, 2, 17, 64, 129):
            for at in (0, 41, 200 - rows):
                got = run(x[at : at + rows], *rest, 3, True)
                assert torch.equal(got, whole[at : at + rows]), (rows, at)
    finally:
        torch.set_num_threads(before)


def test_no_argument_is_changed():
    x, norm, eps, weights = arguments(9)
    kept = [one.clone() for one in (x, norm, *weights)]
    resolve("moe_gate_up_down", "cpu", "float32")(x, norm, eps, weights, 2, True)
    assert all(torch.equal(*pair) for pair in zip(kept, (x, norm, *weights), strict=True))
