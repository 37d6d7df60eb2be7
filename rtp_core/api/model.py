"""Models: their description, weight table, forward contract and attention backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from rtp_core.api.kv import KVFormatId, KVGroup, KVMemory
from rtp_core.api.weights import WeightTable

if TYPE_CHECKING:
    import torch

    from rtp_core.api.plans import PlanRow


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding, half-split layout, of the first `rotary_dim` dimensions of a head.

    `kind` says how frequencies are stretched for long contexts and which of the following
    fields count: ``default``, ``linear`` (factor), ``llama3`` (factor, both frequency factors,
    original_max_position), ``yarn`` (factor, original_max_position, both betas, truncate).
    Cosines and sines are multiplied by `attention_factor`.
    """

    theta: float
    rotary_dim: int
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class ExpertsSpec:
    """Mixture of experts: in `layers`, each token goes to `top_k` of `num_experts` experts.

    `intermediate_size` is one expert's width; `normalize` divides the chosen experts'
    probabilities by their sum.
    """

    layers: tuple[int, ...]
    num_experts: int
    top_k: int
    intermediate_size: int
    normalize: bool


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the rest of the engine needs to know of a model, read without weights.

    `fingerprint` hashes architecture, configuration and weight identity; it roots the
    prefix-cache keys.

    Windows are a property of `kv_groups`. `layer_ropes`, if given, has one entry a layer
    and None where positions are not rotated; otherwise `rope` serves every layer.
    Scores are multiplied by `attention_scale` (None: head_dim ** -0.5). A softcap c maps a
    score or logit x to c * tanh(x / c); None leaves it. `norm_offset` is added to the weight
    of every norm, in float32. `post_norms`: attention and feed-forward outputs are normalised
    before they join the residual stream. `activation` of the gate: ``silu`` or ``gelu_tanh``.
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
    layer_ropes: tuple[RopeSpec | None, ...] = ()
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logits_softcap: float | None = None
    embedding_scale: float = 1.0
    norm_offset: float = 0.0
    post_norms: bool = False
    activation: Literal["silu", "gelu_tanh"] = "silu"
    experts: ExpertsSpec | None = None

    def rope_of(self, layer: int) -> RopeSpec | None:
        """Rotary embedding of a layer; None when it has none."""
        return self.layer_ropes[layer] if layer < len(self.layer_ropes) else self.rope


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


HeadNorms = tuple["torch.Tensor", "torch.Tensor", float]
"""Weights [head_dim] of the RMS norms of query and key heads, and their epsilon."""


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

    def run(
        self,
        qkv: torch.Tensor,
        layer: int,
        plan: AttentionPlan,
        norms: HeadNorms | None = None,
    ) -> torch.Tensor:
        """[tokens, (heads + 2 * kv_heads) * head_dim] -> [tokens, heads * head_dim].

        Normalises heads (if `norms` are given), rotates, writes K and V to their slots, attends.
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
        wanted: torch.Tensor | None = None,
    ) -> ForwardOutput:
        """token_ids int64 [tokens], rows of the step concatenated.

        `wanted`, integers [n], asks for the hidden states of those tokens alone, in that order:
        what only the others need is left out. None asks for all. Captured states are of all.
        """
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


@runtime_checkable
class QueueingModel(Protocol):
    """A model that may only queue work: `CausalModel`s may be this too."""

    @property
    def queues(self) -> bool:
        """True when forward and logits neither wait for the device nor read from it."""
        ...


@runtime_checkable
class EarlyFamily(Protocol):
    """A family that can build before weights are read; `ModelFamily`s may be this too."""

    @property
    def builds_early(self) -> bool:
        """True when `build` depends on parameters' shapes and dtypes, not on their values.

        Such a model is built once to try its kernels, and again when its weights are there.
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
