"""Masks on logits: the kernel is its definition, and draws of masked rows are the host's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_kernels.sampling.mask import apply_masks
from rtp_kernels.sampling.mask_reference import apply_masks as definition


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5000), st.integers(0, 5), st.integers(0, 40), st.booleans(), st.integers(0, 999)
)
def test_the_kernel_is_its_definition(vocab, rows, padding, half, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocab + padding, generator=generator)
    logits = logits.bfloat16() if half else logits
    words = -(-vocab // 32)
    masks = torch.randint(-(2**31), 2**31, (3, words), generator=generator).to(torch.int32)
    places = torch.randint(-1, 3, (rows,), generator=generator).to(torch.int32)
    expected = logits.clone()
    definition(expected, masks, places, vocab)
    apply_masks(logits, masks, places, vocab)
    assert torch.equal(logits, expected)


def test_the_definition_is_bit_by_bit():
    logits = torch.zeros(2, 70)
    bits = np.zeros(96, dtype=np.uint8)
    bits[[0, 31, 32, 63, 64]] = 1
    masks = torch.from_numpy(np.packbits(bits, bitorder="little").view(np.int32))[None]
    definition(logits, masks, torch.tensor([0, -1], dtype=torch.int32), 66)
    kept = (logits[0] == 0).nonzero().flatten().tolist()
    assert kept == [0, 31, 32, 63, 64, 66, 67, 68, 69]  # what lies past the vocabulary stays
    assert not logits[1].any()


def test_shapes_that_do_not_fit_are_refused():
    masks, places = torch.zeros(1, 2, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    with pytest.raises(ValueError, match="2 words"):
        apply_masks(torch.zeros(1, 100), masks, places, 100)
