"""Group codes: the format, rounding to it, and products that read it."""

from __future__ import annotations

import pytest
import torch

from rtp_kernels import few_rows
from rtp_kernels import pack as packing
from rtp_kernels.compiled import unavailable
from rtp_kernels.few_rows import FewRowsLinear, crossover, pack, product, usable
from rtp_kernels.invariant import bind_linear
from rtp_kernels.linear_weight import GROUP, LinearWeight, quantize
from rtp_kernels.pack import pack_for_few_rows

needs_operators = pytest.mark.skipif(usable() is not None, reason=f"{usable()}")


def weight(rows=96, columns=128, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("bits", "steps"), [(4, 15), (8, 255)])
def test_rounding_errs_by_half_a_step_at_most(bits, steps):
    dense = weight()
    codes = quantize(dense, bits)
    groups = dense.view(96, -1, GROUP)
    step = (groups.amax(-1) - groups.amin(-1)) / steps
    error = (codes.dense() - dense).view(96, -1, GROUP).abs().amax(-1)
    assert int(codes.q.max()) <= steps
    assert bool((error <= 0.5 * step + 4e-3 * groups.abs().amax(-1)).all())


def test_constant_and_zero_groups_survive_rounding():
    dense = torch.zeros(2, 64)
    dense[1] = 0.5
    assert torch.equal(quantize(dense, 4).dense(), dense)


@needs_operators
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [1, 3, 8, 17])
def test_product_equals_the_dense_form(bits, rows):
    codes = quantize(weight(), bits)
    x = weight(rows, 128, seed=2).bfloat16()
    wanted = x.float() @ codes.dense().T
    found = product(x, pack(codes)).float()
    assert (found - wanted).norm() / wanted.norm() < 0.02


@needs_operators
def test_many_rows_multiply_densely_and_few_rows_by_codes():
    dense = torch.zeros(96, 128, dtype=torch.bfloat16)
    linear = FewRowsLinear(dense, pack(quantize(weight(), 4)), max_rows=4)
    call = bind_linear("bfloat16")
    bias = torch.ones(96, dtype=torch.bfloat16)
    x = weight(5, 128).bfloat16()
    assert torch.equal(call(x, linear, bias), bias.expand(5, -1))
    assert not torch.equal(call(x[:4], linear, bias), bias.expand(4, -1))


@needs_operators
@pytest.mark.parametrize("compiled", [True, False])
def test_packing_a_model_keeps_plain_parameters_and_measures_bounds(compiled, monkeypatch):
    if compiled and unavailable() is not None:
        pytest.skip(unavailable())
    if not compiled:
        monkeypatch.setattr(packing, "unavailable", lambda: "not wanted")
    norm = torch.ones(128, dtype=torch.bfloat16)
    coded = {
        f"w{number}": LinearWeight(weight(seed=number).bfloat16(), quantize(weight(seed=number), 4))
        for number in range(3)
    }
    made = pack_for_few_rows({"norm": norm, **coded}, "bfloat16")
    assert made["norm"] is norm
    assert len({one.max_rows for name, one in made.items() if name != "norm"}) == 1


@pytest.mark.skipif(unavailable() is not None, reason=f"{unavailable()}")
def test_weights_without_codes_are_read_as_they_are(monkeypatch):
    """For as many rows as it is faster; odd widths and what others read stay dense."""
    monkeypatch.setattr(packing, "crossover", lambda coded, dense, counts: 4)
    parameters = {
        "l.down": weight().bfloat16(),
        "l.gate_up": weight(seed=1).bfloat16(),
        "l.narrow": weight(96, 40).bfloat16(),
        "router": weight(seed=2).bfloat16(),
        "coded": LinearWeight(weight(seed=3).bfloat16(), quantize(weight(seed=3), 4)),
    }
    linear = ["l.down", "l.gate_up", "l.narrow", "coded"]
    made = pack_for_few_rows(parameters, "bfloat16", linear)
    for name in ("l.narrow", "router"):
        assert made[name] is parameters[name]
    assert (made["coded"].packed.bits, made["l.gate_up"].packed.parts) == (4, 2)
    down = made["l.down"]
    assert down.dense is parameters["l.down"]
    assert down.packed.panels.data_ptr() == down.dense.data_ptr()
    assert pack_for_few_rows(parameters, "float32", linear)["l.down"] is down.dense


@needs_operators
@pytest.mark.parametrize("bits", [4, 8])
def test_a_vocabulary_that_cannot_be_packed_stays_dense(bits, monkeypatch):
    monkeypatch.setattr(packing, "unavailable", lambda: "not wanted")
    odd = LinearWeight(weight(rows=99).bfloat16(), quantize(weight(rows=99), bits))
    even = LinearWeight(weight().bfloat16(), quantize(weight(), bits))
    made = pack_for_few_rows({"head": odd, "w": even}, "bfloat16")
    assert made["head"] is odd.dense
    assert made["w"].dense is even.dense


def test_float32_and_missing_operators_fall_back_to_the_dense_form(monkeypatch):
    one = LinearWeight(weight(), quantize(weight(), 4))
    assert pack_for_few_rows({"w": one}, "float32") == {"w": one.dense}
    monkeypatch.setattr(packing, "why_not", lambda: "no such operator")
    assert pack_for_few_rows({"w": one}, "bfloat16") == {"w": one.dense}


def test_wrong_results_of_the_private_operator_are_noticed(monkeypatch):
    monkeypatch.setattr(few_rows, "product", lambda x, parts: torch.zeros(x.shape[0], 64))
    usable.cache_clear()
    try:
        assert "wrong" in (usable() or "")
    finally:
        usable.cache_clear()


@needs_operators
def test_crossover_is_zero_where_codes_never_win(monkeypatch):
    monkeypatch.setattr(few_rows, "_seconds", lambda calls: 1.0)
    dense = weight().bfloat16()
    assert crossover([lambda x: x], [dense]) == 0
