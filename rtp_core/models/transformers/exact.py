"""float32 on the CPU: linear layers whose rows have the same bits in any company.

What a token draws must not depend on who shares its step. The layers of a transformers model
call the BLAS directly, whose last bits change with the number of rows; here they go through
the engine's row-invariant form. Experts of a mixture are grouped by transformers itself and
stay as they are.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from rtp_kernels.invariant import invariant_linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_exact(model: PreTrainedModel) -> None:
    """Replace the forward of every plain linear layer, and of GPT-2's transposed ones."""
    from transformers.pytorch_utils import Conv1D

    for module in model.modules():
        if type(module) is torch.nn.Linear:
            _replace(module, module.weight)
        elif type(module) is Conv1D:
            rows = module.weight.t().contiguous()
            module.weight = torch.nn.Parameter(rows.t(), requires_grad=False)
            _replace(module, rows)


def _replace(module: Any, weight: torch.Tensor) -> None:
    module.forward = partial(_linear, weight, module.bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """x [..., in], weight [out, in] -> [..., out]."""
    done = invariant_linear(x.reshape(-1, x.shape[-1]), weight, bias)
    return done.view(*x.shape[:-1], -1)
