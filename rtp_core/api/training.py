"""Training of draft heads: what the core hands to a method and what it wants back.

The core makes the data, runs the frozen target, keeps the clock, compares, saves and measures; a
method brings its module, its predictions and its drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rtp_core.api.model import ModelSpec

if TYPE_CHECKING:
    import torch

Noise = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""(int64 [rows] positions, int64 [tokens] ascending ids) -> float32 [rows, tokens]: the Gumbel
noise that the target adds to those tokens' scaled logits when it draws at those positions."""


@dataclass(frozen=True, slots=True)
class TrainingTarget:
    """The frozen model, as it is served.

    `embed` and `head` [vocab, hidden], the same tensor where tied; `norm` [hidden], the final
    norm's weight.
    """

    spec: ModelSpec
    embed: torch.Tensor
    head: torch.Tensor
    norm: torch.Tensor


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """Texts, padded at their ends, and what the target says of them.

    `token_ids` int64 [texts, length]; `prompt_lengths` and `lengths` int64 [texts]. `captured`
    [texts, length, layers * hidden] are the residual streams entering the layers that the method
    asked for, in its order; `final` [texts, length, hidden] is the last one after the final norm.

    `laws` [labels, draft_vocab] are the target's probabilities of the next token, renormalised
    over the draft vocabulary. `label_of` int64 [texts, length] tells the row of the law after
    each position; -1 where none is to be learnt: in prompts, after the end, and where the
    target's best token is not in the draft vocabulary.
    """

    token_ids: torch.Tensor
    prompt_lengths: torch.Tensor
    lengths: torch.Tensor
    captured: torch.Tensor
    final: torch.Tensor
    laws: torch.Tensor
    label_of: torch.Tensor


class TargetText(NamedTuple):
    """One text for measuring: int64 [n], [n, layers * hidden] and [n, hidden]; see TargetBatch."""

    token_ids: torch.Tensor
    captured: torch.Tensor
    final: torch.Tensor


class Prediction(NamedTuple):
    """What a head says at one depth (0 is its first draft): `logits` [rows, draft_vocab], and of
    each row the law it is held against, int64 [rows] into `TargetBatch.laws`."""

    depth: int
    logits: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True, slots=True)
class HeadFiles:
    """A head as it is published: `config` becomes config.json, `tensors` the file
    `weights_name`."""

    weights_name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


class DraftHead(Protocol):
    """A head in training. `module` holds all that is trained or saved, in float32."""

    @property
    def module(self) -> torch.nn.Module:
        """Its state_dict is what a checkpoint of the training keeps."""
        ...

    @property
    def learning_rate(self) -> float:
        """Highest rate of AdamW; the core warms up and decays."""
        ...

    @property
    def max_depth(self) -> int:
        """Most tokens that one draft may have."""
        ...

    def predict(self, batch: TargetBatch, progress: float) -> Iterator[Prediction]:
        """Predictions to learn from, at most one a depth; `progress` from 0 to 1 says how much of
        the training is over. The core makes losses of them and follows their gradients."""
        ...

    def drafts(
        self, text: TargetText, first: int, depth: int, temperature: float, noise: Noise | None
    ) -> torch.Tensor:
        """int64 [n - 2 - first, depth]: target ids drafted after every row from `first` on.

        Row i has the target's state of token i and the token i + 1; its first draft stands for
        token i + 2. Drafts are the head's best tokens; with `noise`, of its logits divided by
        `temperature` plus the noise of the drafted token's position.
        """
        ...

    def files(self) -> HeadFiles:
        """What is published, in the dtype that is served."""
        ...


class DraftMethod(Protocol):
    """``draft_trainer:*``: how heads of one kind are made."""

    def capture_layers(self, spec: ModelSpec) -> Sequence[int]:
        """Layers whose entering states the heads read."""
        ...

    def new_head(
        self, target: TrainingTarget, vocab_ids: torch.Tensor, states: torch.Tensor
    ) -> DraftHead:
        """Untrained, on the target's device.

        `vocab_ids` int64 [draft_vocab], ascending, are the tokens that may be drafted; `states`
        [rows, layers * hidden] some that the target captured. Weights are drawn from torch's
        generator, which the core seeded.
        """
        ...

    def load_head(
        self,
        target: TrainingTarget,
        config: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
    ) -> DraftHead:
        """From what `files` published, on the target's device."""
        ...
