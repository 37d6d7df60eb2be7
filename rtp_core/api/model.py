"""Models: their description, weight table, forward contract and attention backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from rtp_core.api.kv import KVFormatId, KVGroup, KVMemory
from rtp_core.api.weights import WeightTable

if TYPE_CHECKING:
    import torch

    from rtp_core.api.plans import PlanRow


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding, half-split layout; `inv_freq_scale` variants come by `kind`."""

    theta: float
    rotary_dim: int
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the rest of the engine needs to know of a model, read without weights.

    `fingerprint` hashes architecture, configuration and weight identity; it roots the
    prefix-cache keys. `num_parameters` is 0 where the shape says it.
    """

    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_model_len: int
    norm_eps: float
    rope: RopeSpec
    tied_head: bool
    dtype: str
    fingerprint: str
    kv_groups: tuple[KVGroup, ...]
    attention_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    num_parameters: int = 0


@dataclass(frozen=True, slots=True)
class ParallelContext:
    """The one door for collectives. A world of one needs no transport."""

    rank: int = 0
    world_size: int = 1

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over ranks."""
        if self.world_size != 1:
            raise RuntimeError("this context holds one rank; build a distributed one")
        return tensor


AttentionPlan = Any
"""Opaque to models: what `plan` makes once a step, `run` takes back in every layer."""


class Scoring(NamedTuple):
    """How attention scores are made.

    A product is multiplied by `scale`, then limited to softcap * tanh(x / softcap). `sinks`
    [heads] are scores of a key that takes part in the softmax and has no value.
    """

    scale: float
    softcap: float | None = None
    sinks: torch.Tensor | None = None


class BoundAttention(Protocol):
    """Attention bound to one model's geometry and opened KV memory."""

    def plan(self, rows: Sequence[PlanRow]) -> AttentionPlan:
        """Slots, rotary rows, masks and key ranges of this step."""
        ...

    def run(self, qkv: torch.Tensor, layer: int, plan: AttentionPlan) -> torch.Tensor:
        """[tokens, (heads + 2 * kv_heads) * head_dim] -> [tokens, heads * head_dim].

        Normalises (if the model asks), rotates, writes K and V to their slots, attends.
        """
        ...

    def positions(self, plan: AttentionPlan) -> torch.Tensor:
        """int64 [tokens] position ids of the step, for models that rotate themselves."""
        ...

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: int,
        plan: AttentionPlan,
        scoring: Scoring,
    ) -> torch.Tensor:
        """`run` without norms and rotation: q [tokens, heads, head_dim], k and v
        [tokens, kv_heads, head_dim] as they are -> [tokens, heads * head_dim].

        The window is that of the layer's KV group.
        """
        ...


class AttentionBackend(Protocol):
    """Which formats a backend reads, and how it binds."""

    @property
    def supported_formats(self) -> frozenset[KVFormatId]:
        """Formats whose blocks `run` can read."""
        ...

    def bind(self, spec: ModelSpec, memory: KVMemory, block_size: int) -> BoundAttention:
        """Called once, after the weights are loaded."""
        ...


@dataclass(frozen=True, slots=True)
class ForwardOutput:
    """`hidden` [tokens, hidden_size] before the final norm; `captured` by layer index."""

    hidden: torch.Tensor
    captured: Mapping[int, torch.Tensor]


class CausalModel(Protocol):
    """A model bound to its weights."""

    def forward(
        self,
        token_ids: torch.Tensor,
        attention: BoundAttention,
        plan: AttentionPlan,
        capture_layers: Sequence[int] = (),
    ) -> ForwardOutput:
        """token_ids int64 [tokens], rows of the step concatenated."""
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden_size] -> float32 [rows, vocab_size]; applies the final norm."""
        ...


@runtime_checkable
class CheckedModel(Protocol):
    """A model that wants to be tried before it serves; `CausalModel`s may be this too."""

    def check(self, attention: BoundAttention, block_size: int) -> None:
        """Run on blocks 0 and 1 of every KV group, which hold nothing yet.

        Raises ModelError when the model computes something else than it should.
        """
        ...


class ModelFamily(Protocol):
    """An architecture: reads its Hugging Face configuration, declares and binds weights."""

    def spec(self, config: Mapping[str, Any], dtype: str, fingerprint: str) -> ModelSpec:
        """Raises ModelError naming the configuration key that cannot be honoured."""
        ...

    def weights(self, spec: ModelSpec) -> WeightTable:
        """Destinations and which checkpoint tensors fill them."""
        ...

    def build(
        self,
        spec: ModelSpec,
        parameters: Mapping[str, torch.Tensor],
        parallel: ParallelContext,
        kernels: Callable[[str], Callable[..., Any]],
    ) -> CausalModel:
        """Bind parameters (by destination name) and operations (`kernels(op_name)`)."""
        ...
