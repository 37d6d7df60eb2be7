"""The cuDNN path's arithmetic around the operator, which a plain form stands in for here."""

from __future__ import annotations

import plain_dense
import pytest
import torch
from checks.attention_steps import expected, make_step

from rtp_kernels.paged_attention import dense
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.ragged import store


@pytest.mark.parametrize(("length", "prefix"), [(20, 0), (17, 16), (7, 37)])
def test_chunks_after_a_prefix_are_the_definition(length, prefix, monkeypatch):
    monkeypatch.setattr(dense, "_attend", plain_dense.attend)
    geometry = Geometry(4, 2, 64, 16, 0.125)
    step = make_step(geometry, [prefix + length] * 2, [length] * 2, gap=8)
    out, _, logs = expected(step)
    store(step.qkv, step.planes, step.tables, geometry, step.norms, length)
    lse = torch.full_like(logs, torch.nan)
    got = dense.dense_chunk(
        step.qkv, step.planes, step.tables.block_tables, geometry, length, prefix, lse
    )
    torch.testing.assert_close(got, out, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(lse, logs, atol=2e-5, rtol=2e-5)


def test_what_cudnn_does_not_have_is_refused():
    qkv = torch.zeros(20, 8 * 64)
    with pytest.raises(ValueError, match=r"softcap 3\.0"):
        dense.dense_prefill(qkv, Geometry(4, 2, 64, 16, 0.125, None, 3.0), 1, 20)
    with pytest.raises(ValueError, match="window 8"):
        dense.dense_prefill(qkv, Geometry(4, 2, 64, 16, 0.125, 8), 1, 20)
    assert dense.suits(Geometry(4, 2, 64, 16, 0.125, 20), 20)
    assert not dense.suits(Geometry(4, 2, 256, 16, 0.125), 20)
