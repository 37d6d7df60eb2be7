"""The frozen model, with the weights that are served, and the states that heads learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from rtp_core.api import CausalModel, ModelSpec, ParallelContext, Role, TrainingTarget
from rtp_core.engine.prepare import Prepared
from rtp_core.errors import ModelError
from rtp_core.loading.load import load_weights
from rtp_core.training.whole_texts import WholeTexts
from rtp_kernels.norm_linear.reference import rms_norm


@dataclass(frozen=True, slots=True)
class States:
    """`captured` [texts, length, layers * hidden]; `final` [texts, length, hidden], normed."""

    captured: torch.Tensor
    final: torch.Tensor


class Target:
    """Runs whole texts through the operations' definitions in torch, on any device."""

    def __init__(
        self,
        spec: ModelSpec,
        model: CausalModel,
        parameters: Mapping[str, torch.Tensor],
        device: torch.device,
    ) -> None:
        self.spec = spec
        self.device = device
        self.embed = parameters["embed"]
        self.head = self.embed if spec.tied_head else parameters["head"]
        norm = parameters["norm"]
        self.norm = norm + spec.norm_offset if spec.norm_offset else norm
        self._model = model

    @property
    def view(self) -> TrainingTarget:
        """What methods see of it."""
        return TrainingTarget(self.spec, self.embed, self.head, self.norm)

    @torch.no_grad()
    def states(self, token_ids: torch.Tensor, layers: Sequence[int]) -> States:
        """`token_ids` int64 [texts, length], padded at their ends; states entering `layers`."""
        texts, length = token_ids.shape
        attention = WholeTexts(self.spec, texts, length, self.device)
        out = self._model.forward(token_ids.reshape(-1), attention, None, tuple(layers))
        chosen = [out.captured[layer] for layer in layers]
        captured = torch.cat(chosen, dim=-1) if chosen else out.hidden.new_empty(len(out.hidden), 0)
        final = rms_norm(out.hidden, self.norm, self.spec.norm_eps)
        return States(captured.view(texts, length, -1), final.view(texts, length, -1))


def load_target(prepared: Prepared, progress: Callable[[int, int], None]) -> Target:
    """All weights in the dtype that is served; codes of quantized files become numbers.

    Raises ModelError for a model whose heads this training cannot make, WeightLoadError.
    """
    check_trainable(prepared)
    spec, device, done = prepared.spec, prepared.context.device, 0

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        progress(done, prepared.plan.num_bytes)

    loader = prepared.host.build(Role.LOADER, prepared.config.loading.loader, prepared.context)
    loaded, _ = load_weights(prepared.plan, loader, device, advance)
    parameters = {name: _dense(one) for name, one in loaded.items()}
    model = prepared.family.build(spec, parameters, ParallelContext(), _definition(spec.dtype))
    return Target(spec, model, parameters, torch.device(device))


def check_trainable(prepared: Prepared) -> None:
    """Raises ModelError naming what stands in the way."""
    spec = prepared.spec
    refused = {
        "transformers runs it, which arranges its weights itself": prepared.resolution.names(
            Role.MODEL
        )
        == ("transformers",),
        "it caps attention scores or logits": spec.attention_softcap is not None
        or spec.logits_softcap is not None,
        "it scales its embeddings": spec.embedding_scale != 1.0,
    }
    for reason, holds in refused.items():
        if holds:
            raise ModelError(
                f"no draft heads can be trained for {spec.architecture}: {reason}",
                remedy="choose a model of the Llama, Mistral, Qwen or SmolLM families",
            )


def _dense(weight: Any) -> torch.Tensor:
    return weight if isinstance(weight, torch.Tensor) else weight.dense


def _definition(dtype: str) -> Callable[[str], Callable[..., Any]]:
    return lambda operation: import_module(f"rtp_kernels.{operation}.reference").bind(dtype)
