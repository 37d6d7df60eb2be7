"""A model that counts: after token t comes t + 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtp_core.api import (
    AttentionPlan,
    BoundAttention,
    CausalModel,
    ForwardOutput,
    HeadNorms,
    KVFormatId,
    KVGroup,
    KVMemory,
    KVPlane,
    ModelSpec,
    ParallelContext,
    ParameterSpec,
    PlanRow,
    RopeSpec,
    Scoring,
    Shard,
    WeightRule,
    WeightTable,
)
from rtp_core.errors import ModelError

if TYPE_CHECKING:
    import torch


class PassThroughBackend:
    """`api.AttentionBackend` for tests that need no attention."""

    supported_formats = frozenset({KVFormatId.DENSE})

    def bind(self, spec: ModelSpec, memory: KVMemory, block_size: int) -> BoundAttention:
        """Memory is not used."""
        del memory, block_size
        return PassThroughAttention(spec.num_heads * spec.head_dim)


class PassThroughAttention:
    """`api.BoundAttention` that answers with the queries; it does not attend."""

    def __init__(self, width: int) -> None:
        self._width = width

    def plan(self, rows: Sequence[PlanRow]) -> AttentionPlan:
        """The rows themselves."""
        return tuple(rows)

    def run(
        self,
        qkv: torch.Tensor,
        layer: int,
        plan: AttentionPlan,
        norms: HeadNorms | None = None,
    ) -> torch.Tensor:
        """[tokens, heads * head_dim]."""
        del layer, plan, norms
        return qkv[:, : self._width]

    def positions(self, plan: AttentionPlan) -> torch.Tensor:
        """int64 [tokens], counted in every row."""
        import torch

        return torch.tensor([row.start + at for row in plan for at in range(len(row.token_ids))])

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: int,
        plan: AttentionPlan,
        scoring: Scoring,
    ) -> torch.Tensor:
        """[tokens, heads * head_dim]."""
        del k, v, layer, plan, scoring
        return q.flatten(1)


class SuccessorFamily:
    """`api.ModelFamily` of one parameter, built as `SuccessorModel`."""

    def spec(self, config: Mapping[str, Any], dtype: str, fingerprint: str) -> ModelSpec:
        """Raises ModelError naming a missing key."""
        for key in ("hidden_size", "vocab_size", "num_hidden_layers"):
            if key not in config:
                raise ModelError(f"config.json: {key} is missing")
        layers = int(config["num_hidden_layers"])
        plane = KVPlane(1, 2, dtype)
        return ModelSpec(
            architecture="SuccessorForCausalLM",
            num_layers=layers,
            hidden_size=int(config["hidden_size"]),
            num_heads=1,
            num_kv_heads=1,
            head_dim=2,
            intermediate_size=int(config["hidden_size"]),
            vocab_size=int(config["vocab_size"]),
            max_model_len=int(config.get("max_position_embeddings", 128)),
            norm_eps=1e-6,
            rope=RopeSpec(10000.0, 2),
            tied_head=True,
            dtype=dtype,
            fingerprint=fingerprint,
            kv_groups=(KVGroup("main", tuple(range(layers)), (plane, plane)),),
        )

    def weights(self, spec: ModelSpec) -> WeightTable:
        """The embedding, which the model does not read."""
        shape = (spec.vocab_size, spec.hidden_size)
        return WeightTable(
            (ParameterSpec("embed", shape, spec.dtype, Shard.VOCABULARY),),
            (WeightRule("model.embed_tokens.weight", "embed", 0, spec.vocab_size),),
        )

    def build(
        self,
        spec: ModelSpec,
        parameters: Mapping[str, torch.Tensor],
        parallel: ParallelContext,
        kernels: Callable[[str], Callable[..., Any]],
    ) -> CausalModel:
        """No operation is needed."""
        del parameters, parallel, kernels
        return SuccessorModel(spec.hidden_size, spec.vocab_size)


class SuccessorModel:
    """`api.CausalModel`: the hidden state's first number is the token id."""

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        self._hidden_size = hidden_size
        self._vocab_size = vocab_size

    def forward(
        self,
        token_ids: torch.Tensor,
        attention: BoundAttention,
        plan: AttentionPlan,
        capture_layers: Sequence[int] = (),
        wanted: torch.Tensor | None = None,
    ) -> ForwardOutput:
        """float32 whatever the dtype, so that every id is exact."""
        import torch

        del attention, plan
        hidden = torch.zeros(len(token_ids), self._hidden_size, device=token_ids.device)
        hidden[:, 0] = token_ids.float()
        captured = dict.fromkeys(capture_layers, hidden)
        return ForwardOutput(hidden if wanted is None else hidden[wanted], captured)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, vocab_size]: ten for the successor, zero for the rest."""
        import torch

        logits = torch.zeros(len(hidden), self._vocab_size, device=hidden.device)
        successor = (hidden[:, 0].long() + 1) % self._vocab_size
        return logits.scatter_(1, successor[:, None], 10.0)
