"""What a model is like, seen by running it without weights.

One pass over meta tensors (shapes, no values) with an attention function that takes notes
tells more than a configuration: which layers attend, over how many heads, how far back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rtp_core.models.transformers.dispatch import NAME, Visibility, answering
from rtp_core.models.transformers.head import Head
from rtp_core.models.transformers.library import refusal

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_NUM_TOKENS = 5
_FAR = 2**20
"""Position of the query whose view tells window from chunk; a multiple of usual chunk sizes."""
_NO_MATTER = frozenset(
    {"dropout", "position_ids", "use_cache", "output_attentions", "position_embeddings"}
)
_HONOURED = frozenset({"scaling", "softcap", "sliding_window", "s_aux", "is_causal"})
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What model code raises when it meets shapes without values, or a mask that is none."""


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer's attention: heads, widths of keys and values, window in tokens or None."""

    layer: int
    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None


@dataclass(frozen=True, slots=True)
class Survey:
    """`layers` in order; sizes as the model's own tensors have them."""

    architecture: str
    layers: tuple[LayerView, ...]
    hidden_size: int
    vocab_size: int


def survey(library: ModuleType, config: PretrainedConfig, model_class: type) -> Survey:
    """Look at the model. Raises ModelError, with the reason, if it cannot be served.

    bfloat16 because grouped matrix products exist on the meta device for it only.
    """
    name = model_class.__name__
    notes = _Notes()
    try:
        with torch.device("meta"):
            model: PreTrainedModel = library.AutoModelForCausalLM.from_config(
                config, attn_implementation=NAME, dtype=torch.bfloat16
            )
        model.eval()
        hidden, logits = _run(model, notes)
    except _FAILURES as error:
        raise refusal(name, _explain(error)) from error
    layers = _checked(name, notes, config)
    return Survey(name, layers, hidden.shape[-1], logits.shape[-1])


def _run(model: PreTrainedModel, notes: _Notes) -> tuple[torch.Tensor, torch.Tensor]:
    decoder = model.get_decoder()
    shape = (1, _NUM_TOKENS)
    with torch.device("meta"), torch.inference_mode(), answering(notes), _Valueless():
        hidden = decoder(
            input_ids=torch.zeros(shape, dtype=torch.int64),
            attention_mask=torch.ones(shape, dtype=torch.int64),
            position_ids=torch.zeros(shape, dtype=torch.int64),
            use_cache=False,
        ).last_hidden_state
        return hidden, Head(model, decoder)(hidden[0])


@dataclass(slots=True)
class _Notes:
    """The `ForwardPass` that writes down what it is asked, and why it could not answer."""

    views: list[LayerView] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def mask(self, function: Callable[..., Any]) -> Visibility:
        return _visibility(function)

    def attend(
        self,
        module: torch.nn.Module,
        heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        mask: Any,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        query, key, value = heads
        self.problems.extend(_problems(module, heads, mask, options))
        window = mask.window if isinstance(mask, Visibility) else None
        layer = getattr(module, "layer_idx", None)
        number = -1 if layer is None else int(layer)
        self.views.append(
            LayerView(number, query.shape[1], key.shape[1], key.shape[3], value.shape[3], window)
        )
        return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


class _Valueless(TorchDispatchMode):
    """Meta tensors hold no values: a condition on one is false, and none of its entries is set."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        aten = torch.ops.aten
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            return 0
        if func is aten.nonzero.default and args[0].is_meta:
            return args[0].new_empty((0, args[0].ndim), dtype=torch.int64)
        return func(*args, **(kwargs or {}))


def _visibility(function: Callable[..., Any]) -> Visibility:
    """How far back two neighbouring queries see, asked key by key."""
    counts = []
    for query in (_FAR, _FAR + 1):
        keys = torch.arange(_FAR + 16, device="cpu")
        answer = function(0, 0, torch.tensor(query, device="cpu"), keys)
        seen = answer.expand(keys.shape).nonzero().flatten()
        num = len(seen)
        if num == 0 or int(seen[-1]) != query or int(seen[0]) != query - num + 1:
            return Visibility(problem="a token sees others than itself and those before it")
        counts.append(num)
    if counts == [_FAR + 1, _FAR + 2]:
        return Visibility()
    if counts[0] == counts[1]:
        return Visibility(counts[0])
    return Visibility(problem="tokens attend within chunks")


def _problems(
    module: torch.nn.Module,
    heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    mask: Any,
    options: Mapping[str, Any],
) -> list[str]:
    query, key, value = heads
    found: list[str] = []
    if not isinstance(mask, Visibility):
        found.append("it makes an attention mask of its own")
    elif mask.problem is not None:
        found.append(mask.problem)
    if options.get("is_causal", getattr(module, "is_causal", True)) is False:
        found.append("a token attends to those after it")
    known = _NO_MATTER | _HONOURED
    given = sorted(key for key, value in options.items() if value is not None and key not in known)
    if given:
        found.append(f"it passes {', '.join(given)} to attention")
    if key.shape[2] != query.shape[2]:
        found.append("it attends to keys that are not its own tokens'")
    if value.shape[3] > key.shape[3]:
        found.append(f"its values are wider than its keys ({value.shape[3]} and {key.shape[3]})")
    return found


def _checked(name: str, notes: _Notes, config: PretrainedConfig) -> tuple[LayerView, ...]:
    """Every layer attends once, in a way the paged cache can serve."""
    if not notes.views:
        raise refusal(name, "its attention does not go through transformers' AttentionInterface")
    if notes.problems:
        raise refusal(name, notes.problems[0])
    numbers = [view.layer for view in notes.views]
    expected = getattr(config.get_text_config(), "num_hidden_layers", len(numbers))
    if sorted(numbers) != list(range(expected)):
        raise refusal(
            name,
            f"attention ran {len(numbers)} times in {expected} layers, "
            "where it must run once in each",
        )
    return tuple(sorted(notes.views, key=lambda view: view.layer))


def _explain(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args[:1] == (NAME,):
        return "its attention does not go through transformers' AttentionInterface"
    if Visibility.__name__ in str(error):
        return "it works on attention masks itself"
    return f"it cannot be looked at without weights ({type(error).__name__}: {error})"
