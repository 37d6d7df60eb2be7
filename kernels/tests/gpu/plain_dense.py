"""What stands in for cuDNN's operator on the CPU."""

from __future__ import annotations

import torch


def attend(q, k, v, geometry, logs, causal):
    """What cuDNN computes: causal from the first key on."""
    k, v = (x.repeat_interleave(geometry.group, 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * geometry.scale
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1, keepdim=True)
