"""Every native family against Hugging Face in float32: prefill, chunks, decoding."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
from paging import BLOCK, Harness
from small_models import ALL, logits_of, random_ids, random_model

LENGTH = 150  # more than a key tile, several windows


def blocks_for(length, first=0):
    return list(range(first, first - (-length // BLOCK)))


def close(got, expected):
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("architecture", "case"), ALL)
def test_logits_equal_hugging_face(architecture, case):
    model = random_model(architecture, case)
    ids = random_ids(LENGTH)
    expected = logits_of(model, ids)
    harness = Harness(model, num_blocks=128)
    close(harness.run((ids, 0, blocks_for(LENGTH))), expected)


CHUNKS = (37, 1, 1, 64, 40, 1, 1, 5)  # single tokens decode


@pytest.mark.parametrize(("architecture", "case"), ALL)
def test_chunks_and_decoding_give_the_bits_of_one_prefill(architecture, case):
    model = random_model(architecture, case)
    ids, other = random_ids(LENGTH), random_ids(30, seed=2)
    whole = Harness(model, num_blocks=128).run((ids, 0, blocks_for(LENGTH)))
    harness = Harness(model, num_blocks=128)
    scattered, start = list(range(90, 90 - len(blocks_for(LENGTH)), -1)), 0
    for size in CHUNKS:
        company = (other[:size], 0, blocks_for(30, 100))
        got = harness.run((ids[start : start + size], start, scattered), company)
        assert torch.equal(got[:size], whole[start : start + size]), (start, size)
        start += size
    assert start == LENGTH
