"""The fused form of prefill equals the blocked one, and is taken where it is faster."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rtp_kernels.paged_attention import prefill
from rtp_kernels.paged_attention.cpu import _blocked
from rtp_kernels.paged_attention.plan import Geometry, RowKeys

GEOMETRY = Geometry(6, 2, 64, 16, 0.125)


def tensors(num_new: int, num_keys: int):
    torch.manual_seed(num_keys)
    q = torch.randn(num_new, 6, 64).bfloat16()
    planes = torch.randn(2, num_keys, 64).bfloat16(), torch.randn(2, num_keys, 64).bfloat16()
    return q, planes, RowKeys(0, num_new, num_keys, 0, None, None)


@pytest.mark.parametrize(("num_new", "num_keys"), [(64, 64), (100, 100), (33, 200), (130, 131)])
def test_fused_equals_blocked(num_new, num_keys):
    q, planes, row = tensors(num_new, num_keys)
    wanted, found = torch.empty_like(q), torch.empty_like(q)
    _blocked(q, planes, row, GEOMETRY, wanted, None)
    prefill.fused(q, planes, row, GEOMETRY, found)
    torch.testing.assert_close(found.float(), wanted.float(), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("row", "geometry", "fits"),
    [
        ({}, {}, True),
        ({"num_new": 8}, {}, False),
        ({"tree": torch.ones(64, 64, dtype=torch.bool)}, {}, False),
        ({}, {"window": 40}, False),
        ({}, {"window": 64}, True),
        ({}, {"softcap": 30.0}, False),
    ],
)
def test_only_plain_causal_rows_suit(row, geometry, fits):
    _, _, plain = tensors(64, 64)
    made = dataclasses.replace(plain, **row), dataclasses.replace(GEOMETRY, **geometry)
    assert prefill.suits(*made) is fits


def test_the_faster_form_is_measured_once(monkeypatch):
    seconds = iter((2.0, 1.0))
    monkeypatch.setattr(prefill, "_seconds", lambda call: next(seconds))
    prefill.is_faster.cache_clear()
    try:
        assert prefill.is_faster(GEOMETRY, _blocked)
        assert prefill.is_faster(GEOMETRY, _blocked)
    finally:
        prefill.is_faster.cache_clear()
