"""The same model in Hugging Face transformers, as the reference for speed and for tokens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rtp_core.api import ParameterSpec, WeightRule, WeightTable
from rtp_core.bench.rival import RivalRun, missing
from rtp_core.errors import ModelError
from rtp_core.loading.checkpoint import Checkpoint, open_checkpoint
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformersRival:
    """`generate` of transformers with the engine's weights, dense, in the engine's dtype."""

    name = "transformers"

    def __init__(self, path: Path, dtype: str) -> None:
        self._model = hugging_face_model(path, dtype)
        import transformers

        self.version = transformers.__version__
        self.dtype = dtype

    def refusal(self, batch_size: int) -> str | None:
        """It takes any batch of prompts of one length."""
        del batch_size
        return None

    def run(self, prompts: Sequence[Sequence[int]], output_len: int) -> RivalRun:
        """See `rival.Rival`."""
        return run_rival(self._model, prompts, output_len)


def hugging_face_model(path: Path, dtype: str) -> PreTrainedModel:
    """A transformers model with the weights of `path` (directory or .gguf file).

    Raises ModelError when transformers is not installed.
    """
    try:
        from transformers import CONFIG_MAPPING, AutoModelForCausalLM
    except ImportError as error:
        raise missing("transformers", "pip install 'rtp-core[transformers]'") from error
    checkpoint = open_checkpoint(path)
    settings = dict(checkpoint.config)
    config = CONFIG_MAPPING[settings.pop("model_type")](**settings)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    state = _state(checkpoint, dtype)
    absent, unexpected = model.load_state_dict(state, strict=False)
    lost = [name for name in absent if name != "lm_head.weight"]
    if lost or unexpected:
        raise ModelError(f"transformers lacks {lost}, does not know {list(unexpected)}")
    model.tie_weights()
    return model.eval()


def run_rival(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], output_len: int
) -> RivalRun:
    """Greedy `generate` over equal-length prompts, timed at every step."""
    stamps: list[float] = []

    def stamp(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        stamps.append(time.perf_counter())
        return scores

    ids = torch.tensor(prompts)
    began = time.perf_counter()
    options: dict[str, Any] = {
        "attention_mask": torch.ones_like(ids),
        "do_sample": False,
        "min_new_tokens": output_len,
        "max_new_tokens": output_len,
        "logits_processor": [stamp],
        "pad_token_id": 0,
    }
    with torch.inference_mode():
        model.generate(ids, **options)  # pyright: ignore[reportCallIssue]
    later = [after - before for before, after in itertools.pairwise(stamps)]
    return RivalRun(stamps[0] - began, tuple(later), time.perf_counter() - began)


def _state(checkpoint: Checkpoint, dtype: str) -> dict[str, torch.Tensor]:
    tensors = [one for one in checkpoint.tensors.values() if "rotary_emb" not in one.name]
    table = WeightTable(
        tuple(ParameterSpec(one.name, one.shape, dtype) for one in tensors),
        tuple(WeightRule(one.name, one.name, 0, one.shape[0]) for one in tensors),
        ("rotary_emb.inv_freq",),
    )
    state, _ = load_weights(plan_weights(table, checkpoint), MmapLoader(), "cpu", lambda _: None)
    return {name: one for name, one in state.items() if isinstance(one, torch.Tensor)}
