"""The family of all architectures that have none of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from rtp_core.api import (
    CausalModel,
    KVGroup,
    KVPlane,
    ModelSpec,
    ParallelContext,
    RopeSpec,
    TensorInfo,
    WeightTable,
)
from rtp_core.errors import ModelError
from rtp_core.models.transformers.configuration import (
    causal_class,
    longest_context,
    read_configuration,
)
from rtp_core.models.transformers.dispatch import register
from rtp_core.models.transformers.exact import make_exact
from rtp_core.models.transformers.library import load_library
from rtp_core.models.transformers.loading import BUILDING, filled_model, verbatim_table
from rtp_core.models.transformers.model import TransformersModel
from rtp_core.models.transformers.survey import LayerView, Survey, survey

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_UNREAD = RopeSpec(theta=1.0, rotary_dim=0)
"""These models rotate queries and keys themselves."""


class TransformersFamily:
    """Any causal language model that transformers has; see `api.ModelFamily`.

    Knows the checkpoint's tensors from the start and its configuration from `spec` on.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self._tensors = tensors
        self._chosen: tuple[PretrainedConfig, type] | None = None

    def spec(self, config: Mapping[str, Any], dtype: str, fingerprint: str) -> ModelSpec:
        """Looks at the model without its weights.

        Raises ModelError when transformers is not installed, or with the reason why the
        architecture cannot be served.
        """
        (architecture,) = config["architectures"]
        library = load_library(architecture)
        register()
        settings = read_configuration(library, config, architecture)
        model_class = causal_class(library, settings, architecture)
        with BUILDING:
            seen = survey(library, settings, model_class)
        self._chosen = (settings, model_class)
        return _describe(seen, settings, dtype, fingerprint)

    def weights(self, spec: ModelSpec) -> WeightTable:
        """Every tensor of the checkpoint under its own name."""
        return verbatim_table(self._tensors, spec.dtype)

    def build(
        self,
        spec: ModelSpec,
        parameters: Mapping[str, torch.Tensor],
        parallel: ParallelContext,
        kernels: Callable[[str], Callable[..., Any]],
    ) -> CausalModel:
        """Raises WeightLoadError naming tensors that do not fit the model."""
        del kernels
        if parallel.world_size != 1:
            raise ModelError("tensor parallelism is not available through transformers")
        if self._chosen is None:
            raise ModelError("the model was not described before it was built")
        library = load_library(spec.architecture)
        config, model_class = self._chosen
        stored = {name: one.view(self._tensors[name].shape) for name, one in parameters.items()}
        model = filled_model(library, model_class, config, stored, spec.dtype)
        if spec.dtype == "float32" and model.device.type == "cpu":
            make_exact(model)
        return TransformersModel(model, len(spec.kv_groups))


def _describe(seen: Survey, config: PretrainedConfig, dtype: str, fingerprint: str) -> ModelSpec:
    text = config.get_text_config()
    first = seen.layers[0]
    return ModelSpec(
        architecture=seen.architecture,
        num_layers=len(seen.layers),
        hidden_size=seen.hidden_size,
        num_heads=first.num_heads,
        num_kv_heads=first.num_kv_heads,
        head_dim=first.key_dim,
        intermediate_size=4 * seen.hidden_size,
        vocab_size=seen.vocab_size,
        max_model_len=longest_context(config),
        norm_eps=0.0,
        rope=_UNREAD,
        tied_head=bool(getattr(text, "tie_word_embeddings", False)),
        dtype=dtype,
        fingerprint=fingerprint,
        kv_groups=_groups(seen.layers, dtype),
        layer_ropes=(None,) * len(seen.layers),
    )


def _groups(layers: tuple[LayerView, ...], dtype: str) -> tuple[KVGroup, ...]:
    """Layers of one geometry and window share a group; narrow values are stored as wide as keys."""
    members: dict[tuple[int, int, int | None], list[int]] = {}
    for view in layers:
        members.setdefault((view.num_kv_heads, view.key_dim, view.window), []).append(view.layer)
    groups: list[KVGroup] = []
    for number, ((heads, width, window), numbers) in enumerate(members.items()):
        plane = KVPlane(heads, width, dtype)
        name = "main" if number == 0 else f"group{number}"
        groups.append(KVGroup(name, tuple(numbers), (plane, plane), window))
    return tuple(groups)
