"""What sampling one token means: the definition, with full sorts, in plain torch and NumPy.

Logits are processed already (bias, penalties). Truncation follows temperature, in the order
top-k, top-p, min-p; ties at the edge of top-k are kept. The token is the argmax of
``logit / temperature + Gumbel noise`` over what is left (Gumbel-max), lowest id on a tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rtp_kernels.sampling.philox import gumbel


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw: noise key (seed, position, choice) and the shape of the distribution."""

    seed: int
    position: int
    choice: int
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


def kept(logits: torch.Tensor, draw: Draw) -> torch.Tensor:
    """bool [vocab]: tokens that survive truncation. logits float32 [vocab]."""
    scaled = logits / draw.temperature
    keep = scaled > float("-inf")
    if 0 < draw.top_k < scaled.numel():
        edge = scaled.sort(descending=True).values[draw.top_k - 1]
        keep &= scaled >= edge
    if draw.top_p < 1.0:
        masked = scaled.masked_fill(~keep, float("-inf"))
        ordered, order = masked.double().softmax(0).sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        inside = torch.zeros_like(keep)
        inside[order] = before < draw.top_p
        keep &= inside
    if draw.min_p > 0.0:
        peak = scaled[keep].max()
        keep &= scaled >= peak + float(np.log(np.float32(draw.min_p)))
    return keep


def sample(logits: torch.Tensor, draw: Draw) -> int:
    """The token id of one draw; temperature 0 is the argmax."""
    if draw.temperature == 0.0:
        return int(logits.argmax())
    ids = kept(logits, draw).nonzero().flatten().numpy()
    noise = gumbel(draw.seed, draw.position, draw.choice, ids)
    noisy = (logits / draw.temperature).numpy()[ids] + noise
    return int(ids[noisy.argmax()])
