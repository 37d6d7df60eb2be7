"""CPU form: the same token as the reference, without sorting the vocabulary.

Noise lies in [-2.9, 17.4], so only tokens within 22 nats of the maximum can win; sorts and
noise run over these candidates, usually a small part of the vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch

from rtp_kernels.sampling.philox import gumbel
from rtp_kernels.sampling.reference import Draw

REACH = 22.0
_FIRST_SORT = 512


def sample(logits: torch.Tensor, draw: Draw) -> int:
    """logits float32 [vocab] on the CPU -> token id."""
    if draw.temperature == 0.0:
        return int(logits.argmax())
    values = logits.numpy()
    scaled = values / np.float32(draw.temperature)
    floor = scaled.max() - np.float32(REACH)
    if 0 < draw.top_k < len(scaled):
        edge = np.partition(scaled, len(scaled) - draw.top_k)[len(scaled) - draw.top_k]
        floor = max(floor, edge)
    ids = np.flatnonzero(scaled >= floor)
    if draw.top_p < 1.0:
        ids = _nucleus(scaled, ids, draw)
    if draw.min_p > 0.0:
        chosen = scaled[ids]
        ids = ids[chosen >= chosen.max() + np.log(np.float32(draw.min_p))]
    noise = gumbel(draw.seed, draw.position, draw.choice, ids)
    return int(ids[(scaled[ids] + noise).argmax()])


def _nucleus(scaled: np.ndarray, ids: np.ndarray, draw: Draw) -> np.ndarray:
    """Candidates inside the smallest set of probability `top_p`, ids ascending.

    The mass outside the candidates' reach still counts in the denominator. Only the heaviest
    `size` candidates are sorted, more if these do not reach `top_p`.
    """
    chosen = scaled[ids].astype(np.float64)
    peak = chosen.max()
    weights = np.exp(chosen - peak)
    total = weights.sum() if draw.top_k > 0 else np.exp(scaled.astype(np.float64) - peak).sum()
    size = _FIRST_SORT
    while True:
        heavy = _heaviest(weights, size)
        order = heavy[np.argsort(-weights[heavy], kind="stable")]
        mass = np.cumsum(weights[order])
        if len(heavy) == len(ids) or mass[-1] >= draw.top_p * total:
            return np.sort(ids[order[mass - weights[order] < draw.top_p * total]])
        size *= 8


def _heaviest(weights: np.ndarray, size: int) -> np.ndarray:
    """Positions, ascending, of at least the `size` largest weights (ties included)."""
    if size >= len(weights):
        return np.arange(len(weights))
    edge = np.partition(weights, len(weights) - size)[len(weights) - size]
    return np.flatnonzero(weights >= edge)
