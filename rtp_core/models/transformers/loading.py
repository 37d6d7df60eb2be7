"""Checkpoint tensors into a transformers model, by transformers' own rules.

Our loaders bring every tensor of the checkpoint under its own name; transformers renames,
merges and ties them (experts that a checkpoint keeps apart and the model keeps stacked, for
example). Nothing may be missing or left over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from rtp_core.api import ParameterSpec, TensorInfo, WeightRule, WeightTable
from rtp_core.errors import WeightLoadError
from rtp_core.models.transformers.dispatch import NAME

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

BUILDING = Lock()
"""transformers sets torch's default dtype while it builds: one model at a time."""

_FLOATS = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SMALL = 2**22
_MOST_NAMES = 10


def verbatim_table(tensors: Mapping[str, TensorInfo], dtype: str) -> WeightTable:
    """Every float tensor under its own name; others are buffers that a model makes itself.

    Large tensors come in the run dtype. Small ones keep the file's: transformers casts them,
    or keeps in float32 what a model wants so. A scalar is declared as one row. Quantized weights
    come in the run dtype.
    """
    parameters: list[ParameterSpec] = []
    ignored: list[str] = []
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS and not tensor.quantized:
            ignored.append(name)
            continue
        shape = tensor.shape or (1,)
        small = torch.Size(shape).numel() <= _SMALL and not tensor.quantized
        parameters.append(ParameterSpec(name, shape, _FLOATS[tensor.dtype] if small else dtype))
    rules = [WeightRule(one.name, one.name, 0, one.shape[0]) for one in parameters]
    return WeightTable(tuple(parameters), tuple(rules), tuple(ignored))


def filled_model(
    library: ModuleType,
    model_class: Any,
    config: PretrainedConfig,
    parameters: Mapping[str, torch.Tensor],
    dtype: str,
) -> PreTrainedModel:
    """The model in evaluation mode, its tensors shared with `parameters` where they fit as is.

    Raises WeightLoadError naming tensors that are missing, left over or of another shape.
    """
    with BUILDING, _without_progress_bar(library):
        try:
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(parameters),
                dtype=getattr(torch, dtype),
                attn_implementation=NAME,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise WeightLoadError(f"transformers cannot take the tensors: {error}") from error
    for fault in ("missing", "unexpected", "mismatched"):
        if found := report[f"{fault}_keys"]:
            raise WeightLoadError(
                f"{fault}: {_some(found)}",
                remedy="the checkpoint is incomplete or config.json belongs to another model",
            )
    return model.requires_grad_(False)


def _some(found: Collection[Any]) -> str:
    """Names, or (name, shape in the file, shape in the model)."""
    texts = sorted(
        one if isinstance(one, str) else f"{one[0]} {list(one[1])} instead of {list(one[2])}"
        for one in found
    )
    more = f" and {len(texts) - _MOST_NAMES} more" if len(texts) > _MOST_NAMES else ""
    return ", ".join(texts[:_MOST_NAMES]) + more


@contextmanager
def _without_progress_bar(library: ModuleType) -> Iterator[None]:
    """Loading is told by the engine's own progress and log."""
    logging = library.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
