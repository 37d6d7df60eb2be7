"""Packing of weight codes."""

from __future__ import annotations

from dataclasses import replace

import kernel_cases as cases
import pytest
import torch

from rtp_kernels.linear_weight import GroupCodes
from rtp_kernels_cpu.weights import borrow, pack, unpack


def assert_same(back: GroupCodes, codes: GroupCodes) -> None:
    assert back.bits == codes.bits
    assert torch.equal(back.q, codes.q)
    assert torch.equal(back.scale, codes.scale)
    assert torch.equal(back.minimum, codes.minimum)


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (1, 32), (37, 96), (64, 320)])
def test_unpacking_gives_back_every_code_scale_and_minimum(kind, rows, columns):
    codes = cases.random_codes(rows, columns, kind)
    packed = pack(codes)
    assert_same(unpack(packed), codes)
    assert packed.shape == (rows, columns)


def test_parts_are_padded_separately():
    codes = cases.random_codes(2 * 21, 64, "q4_1")
    packed = pack(codes, parts=2)
    assert packed.panels.shape[0] == 4
    assert_same(unpack(packed), codes)


@pytest.mark.parametrize(("kind", "num_bytes"), [("q4_0", 288), ("q4_1", 320), ("q8_0", 544)])
def test_a_minimum_that_follows_from_the_scale_takes_no_room(kind, num_bytes):
    """16 outputs and 32 inputs: 16 bytes of codes and 2 of scale an output with 4 bits."""
    packed = pack(cases.random_codes(16, 32, kind))
    assert packed.panels.nbytes == num_bytes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(16, 40, dtype=torch.uint8)}, "multiple of 32"),
        ({"q": torch.zeros(0, 64, dtype=torch.uint8)}, "empty"),
        ({"q": torch.zeros(16, 64, dtype=torch.int8)}, "uint8"),
        ({"bits": 5}, "4 or 8 bits"),
        ({"q": torch.full((16, 64), 16, dtype=torch.uint8)}, "0 ... 15"),
        ({"scale": torch.zeros(16, 2)}, "scale must be float16"),
        ({"minimum": torch.zeros(8, 2).half()}, "minimum must be float16"),
    ],
)
def test_codes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        pack(replace(cases.random_codes(16, 64, "q4_1"), **change))


def test_odd_rows_cannot_be_two_parts():
    with pytest.raises(ValueError, match="2 parts"):
        pack(cases.random_codes(33, 32, "q8_0"), parts=2)


def test_a_dense_weight_is_borrowed_not_copied():
    dense = torch.randn(40, 64).bfloat16()
    borrowed = borrow(dense)
    assert borrowed.panels.data_ptr() == dense.data_ptr()
    assert borrowed.shape == (40, 64)


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        (torch.zeros(16, 64), "bfloat16"),
        (torch.zeros(64, 16).bfloat16().T, "contiguous"),
        (torch.zeros(16, 48).bfloat16(), "multiple of 32"),
    ],
)
def test_a_dense_weight_that_does_not_fit_is_refused(dense, message):
    with pytest.raises(ValueError, match=message):
        borrow(dense)
