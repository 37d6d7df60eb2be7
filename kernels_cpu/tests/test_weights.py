"""The weight format and its packing."""

from __future__ import annotations

import kernel_cases as cases
import pytest
import torch

from rtp_kernels_cpu.weights import WeightCodes, dequantize, pack, quantize, unpack


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (1, 32), (37, 96), (64, 320)])
def test_unpacking_gives_back_every_code_scale_and_minimum(kind, rows, columns):
    codes = cases.random_codes(rows, columns, kind)
    back = unpack(pack(codes))
    assert torch.equal(back.codes, codes.codes)
    assert torch.equal(back.scale, codes.scale)
    assert (back.minimum is None) == (codes.minimum is None)
    if codes.minimum is not None:
        assert torch.equal(back.minimum, codes.minimum)


def test_parts_are_padded_separately():
    codes = cases.random_codes(2 * 21, 64, "q4_1")
    packed = pack(codes, parts=2)
    assert packed.panels.shape[0] == 4
    assert torch.equal(unpack(packed).codes, codes.codes)


def test_gguf_q4_blocks_keep_their_values():
    """Q4_0 is d * (q - 8), Q4_1 is d * q + m."""
    q = torch.arange(16, dtype=torch.uint8).repeat(2)[None]
    d, m = torch.tensor([[0.25]]).half(), torch.tensor([[-1.5]]).half()
    assert torch.equal(dequantize(WeightCodes(q, d)), 0.25 * (q.float() - 8))
    assert torch.equal(dequantize(WeightCodes(q, d, m)), 0.25 * q.float() - 1.5)


@pytest.mark.parametrize(("bits", "bound"), [(4, 0.08), (8, 0.006)])
def test_quantizing_keeps_a_dense_weight_within_its_step(bits, bound):
    dense = torch.randn(40, 128, generator=torch.Generator().manual_seed(0))
    error = dequantize(quantize(dense, bits)) - dense
    assert error.norm() / dense.norm() < bound


def test_quantizing_constant_groups_stays_finite():
    dense = torch.cat((torch.zeros(16, 32), torch.full((16, 32), 0.5)), dim=1)
    for bits in (4, 8):
        assert torch.allclose(dequantize(quantize(dense, bits)), dense, atol=1e-3)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (cases.random_codes(16, 64, "q4_1").codes[:, :40], "multiple of 32"),
        (torch.zeros(16, 64, dtype=torch.int16), "uint8"),
        (torch.full((16, 64), 16, dtype=torch.uint8), "0 ... 15"),
    ],
)
def test_wrong_codes_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        pack(WeightCodes(codes, torch.zeros(16, 2).half()))


def test_wrong_scales_are_refused():
    codes = cases.random_codes(16, 64, "q4_1")
    with pytest.raises(ValueError, match="scale must be float16"):
        pack(WeightCodes(codes.codes, codes.scale.float()))
    with pytest.raises(ValueError, match="minimum must be float16"):
        pack(WeightCodes(codes.codes, codes.scale, codes.scale[:8]))


def test_odd_rows_cannot_be_two_parts():
    with pytest.raises(ValueError, match="2 parts"):
        pack(cases.random_codes(33, 32, "q8_0"), parts=2)
