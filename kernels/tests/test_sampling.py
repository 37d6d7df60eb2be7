"""Noise against published vectors, the fast form against the definition, laws by chi-square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_kernels.sampling import cpu, reference
from rtp_kernels.sampling.best import best
from rtp_kernels.sampling.philox import gumbel, philox4x32
from rtp_kernels.sampling.reference import Draw

# Known answers of Random123 for philox4x32-10.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_known_answers(counter, key, answer):
    words = philox4x32(np.array(counter, dtype=np.uint64)[:, None], key)
    assert tuple(int(word) for word in words[:, 0]) == answer


def test_noise_of_a_token_does_not_depend_on_its_company():
    ids = np.arange(1000)
    everything = gumbel(7, 3, 0, ids)
    some = np.array([5, 17, 999])
    assert np.array_equal(gumbel(7, 3, 0, some), everything[some])
    for other in (gumbel(8, 3, 0, ids), gumbel(7, 4, 0, ids), gumbel(7, 3, 1, ids)):
        assert not np.array_equal(other, everything)
    assert not np.array_equal(gumbel(7 + 2**40, 3, 0, ids), everything)


def test_noise_is_gumbel_and_bounded():
    noise = gumbel(1, 1, 0, np.arange(200_000))
    assert noise.min() > -2.9
    assert noise.max() < 16.7
    assert abs(noise.mean() - 0.5772) < 0.01
    assert abs(noise.var() - np.pi**2 / 6) < 0.02


draws = st.builds(
    Draw,
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 10_000),
    choice=st.integers(0, 3),
    temperature=st.sampled_from([0.0, 0.01, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, -1, 1, 5, 100, 10_000]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 1e-6]),
    min_p=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)


@settings(max_examples=300, deadline=None)
@given(draw=draws, seed=st.integers(0, 10_000), spread=st.sampled_from([0.1, 3.0, 30.0]))
def test_fast_form_draws_the_same_token(draw, seed, spread):
    logits = torch.randn(700, generator=torch.Generator().manual_seed(seed)) * spread
    if seed % 3 == 0:
        logits[::2] = float("-inf")
    assert cpu.sample(logits, draw) == reference.sample(logits, draw)


def test_wide_nucleus_needs_more_than_the_first_sort():
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(3))
    for position in range(20):
        draw = Draw(5, position, 0, 1.0, top_p=0.95)
        assert cpu.sample(logits, draw) == reference.sample(logits, draw)


def chi_square(counts, expected):
    counts, expected = np.array(counts, float), np.array(expected, float)
    big = expected >= 10
    pooled = (
        np.append(counts[big], counts[~big].sum()),
        np.append(expected[big], expected[~big].sum()),
    )
    keep = pooled[1] > 0
    return (((pooled[0] - pooled[1]) ** 2)[keep] / pooled[1][keep]).sum(), keep.sum() - 1


@pytest.mark.parametrize(
    "shape",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 1.0, "top_k": 4},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 1.0, "min_p": 0.2},
        {"temperature": 1.5, "top_k": 8, "top_p": 0.9, "min_p": 0.05},
    ],
)
def test_frequencies_follow_the_truncated_softmax(shape):
    logits = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5, -2.0, -3.0])
    count = 6000
    tokens = [cpu.sample(logits, Draw(11, position, 0, **shape)) for position in range(count)]
    keep = reference.kept(logits, Draw(0, 0, 0, **shape))
    law = (logits / shape["temperature"]).masked_fill(~keep, float("-inf")).softmax(0)
    statistic, freedom = chi_square(np.bincount(tokens, minlength=10), law.numpy() * count)
    assert statistic < freedom + 4.5 * np.sqrt(2 * freedom) + 4
    assert all(keep[token] for token in set(tokens))


def test_a_wrong_law_is_noticed():
    """The chi-square bound has teeth: another temperature's draws fail it."""
    logits = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5, -2.0, -3.0])
    tokens = [cpu.sample(logits, Draw(11, position, 0, 0.85)) for position in range(6000)]
    statistic, freedom = chi_square(
        np.bincount(tokens, minlength=10), logits.softmax(0).numpy() * 6000
    )
    assert statistic > freedom + 4.5 * np.sqrt(2 * freedom) + 4


@pytest.mark.parametrize("vocab", [1, 127, 128, 129, 259, 1024, 1000])
def test_best_is_the_first_of_the_largest(vocab):
    torch.manual_seed(vocab)
    for _ in range(20):
        rows = int(torch.randint(1, 9, ()))
        logits = torch.randint(0, 5, (rows, vocab)).float()  # many ties
        values, ids = best(logits)
        expected = [row.index(max(row)) for row in logits.tolist()]
        assert ids.tolist() == expected
        assert torch.equal(values, logits.amax(-1))


@pytest.mark.parametrize("vocab", [5, 128, 300])
def test_best_of_a_row_without_a_usable_logit_is_not_finite(vocab):
    logits = torch.zeros(6, vocab)
    logits[:] = float("-inf")
    logits[0, vocab // 2] = float("nan")
    logits[2, vocab - 1] = float("nan")
    values, _ = best(logits)
    assert not torch.isfinite(values).any()
