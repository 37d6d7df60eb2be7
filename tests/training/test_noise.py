"""The sampler's noise, once more, must be the sampler's noise."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_core.training.noise import noise_of
from rtp_kernels.sampling.philox import gumbel


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.integers(0, 2**31), min_size=1, max_size=4),
    st.sets(st.integers(0, 200_000), min_size=1, max_size=40),
)
def test_equal_to_the_definition(seed, positions, tokens):
    ids = np.array(sorted(tokens), dtype=np.int64)
    found = noise_of(seed)(torch.tensor(positions), torch.from_numpy(ids))
    wanted = np.stack([gumbel(seed, position, 0, ids) for position in positions])
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)
