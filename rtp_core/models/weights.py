"""Weight tables shared by decoder families: fused, with a shard rule for every weight."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from rtp_core.api import ExpertsSpec, ModelSpec, ParameterSpec, Shard, WeightRule, WeightTable

IGNORED = ("rotary_emb.inv_freq",)


class TableBuilder:
    """Collects parameters and the rules that fill them."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._parameters: list[ParameterSpec] = []
        self._rules: list[WeightRule] = []
        self._alternatives: list[WeightRule] = []

    def add(
        self, name: str, shape: tuple[int, ...], source: str, shard: Shard, dtype: str | None = None
    ) -> None:
        """One checkpoint tensor fills one parameter."""
        self._rules.append(WeightRule(source, name, 0, shape[0]))
        self._parameters.append(ParameterSpec(name, shape, dtype or self._dtype, shard))

    def fuse(
        self,
        name: str,
        columns: tuple[int, ...],
        sources: Sequence[tuple[str, int]],
        shard: Shard,
    ) -> None:
        """Several checkpoint tensors, stacked by rows in order."""
        offset = 0
        for source, num_rows in sources:
            self._rules.append(WeightRule(source, name, offset, num_rows))
            offset += num_rows
        self._parameters.append(ParameterSpec(name, (offset, *columns), self._dtype, shard))

    def or_whole(self, name: str, source: str) -> None:
        """The parameter `name`, last added, may also come as one checkpoint tensor."""
        self._alternatives.append(WeightRule(source, name, 0, self._parameters[-1].shape[0]))

    def table(self, others: Container[str]) -> WeightTable:
        """The finished table; `others` are matrices that no linear operation reads."""
        parameters = tuple(
            replace(one, linear=len(one.shape) == 2 and one.name not in others)
            for one in self._parameters
        )
        return WeightTable(parameters, tuple(self._rules), IGNORED, tuple(self._alternatives))


def decoder_table(spec: ModelSpec) -> WeightTable:
    """Embedding, `num_layers` decoder layers, final norm, head unless tied."""
    return DecoderTable(spec).build()


class DecoderTable:
    """Names and shapes of one decoder's weights, here and in Hugging Face checkpoints."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._builder = TableBuilder(spec.dtype)
        self._others = set() if spec.tied_head else {"embed"}

    def build(self) -> WeightTable:
        """The whole table."""
        spec, builder = self._spec, self._builder
        table = (spec.vocab_size, spec.hidden_size)
        builder.add("embed", table, "model.embed_tokens.weight", Shard.VOCABULARY)
        for layer in range(spec.num_layers):
            here, there = f"layers.{layer}.", f"model.layers.{layer}."
            self._norms(here, there)
            self._attention(here, there + "self_attn.")
            if spec.experts is not None and layer in spec.experts.layers:
                self._experts(here, there + "mlp.", spec.experts)
            else:
                self._mlp(here, there + "mlp.")
        self._norm("norm", "model.norm.weight", spec.hidden_size)
        if not spec.tied_head:
            builder.add("head", table, "lm_head.weight", Shard.VOCABULARY)
        return builder.table(self._others)

    def _norm(self, name: str, source: str, width: int) -> None:
        """Offsets are added in float32, so the weight stays in it."""
        dtype = "float32" if self._spec.norm_offset else None
        self._builder.add(name, (width,), source, Shard.REPLICATED, dtype)

    def _norms(self, here: str, there: str) -> None:
        spec, names = self._spec, {"attention_norm": "input", "mlp_norm": "post_attention"}
        if spec.post_norms:
            names = {
                "attention_norm": "input",
                "attention_post_norm": "post_attention",
                "mlp_norm": "pre_feedforward",
                "mlp_post_norm": "post_feedforward",
            }
        for name, source in names.items():
            self._norm(here + name, f"{there}{source}_layernorm.weight", spec.hidden_size)
        if spec.qk_norm:
            for name in ("q_norm", "k_norm"):
                self._norm(here + name, f"{there}self_attn.{name}.weight", spec.head_dim)

    def _attention(self, here: str, there: str) -> None:
        spec, builder = self._spec, self._builder
        q_rows, kv_rows = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
        parts = (("q_proj", q_rows), ("k_proj", kv_rows), ("v_proj", kv_rows))
        weights = [(f"{there}{part}.weight", rows) for part, rows in parts]
        builder.fuse(here + "qkv", (spec.hidden_size,), weights, Shard.KV_HEADS)
        o = (spec.hidden_size, q_rows)
        builder.add(here + "o", o, there + "o_proj.weight", Shard.COLUMNS)
        if spec.attention_bias:
            biases = [(f"{there}{part}.bias", rows) for part, rows in parts]
            builder.fuse(here + "qkv_bias", (), biases, Shard.KV_HEADS)
        if spec.attention_output_bias:
            builder.add(here + "o_bias", o[:1], there + "o_proj.bias", Shard.REPLICATED)

    def _mlp(self, here: str, there: str) -> None:
        spec, builder = self._spec, self._builder
        width, hidden = spec.intermediate_size, spec.hidden_size
        parts = ("gate_proj", "up_proj")
        weights = [(f"{there}{part}.weight", width) for part in parts]
        builder.fuse(here + "gate_up", (hidden,), weights, Shard.ROWS)
        builder.add(here + "down", (hidden, width), there + "down_proj.weight", Shard.COLUMNS)
        if spec.mlp_bias:
            biases = [(f"{there}{part}.bias", width) for part in parts]
            builder.fuse(here + "gate_up_bias", (), biases, Shard.ROWS)
            builder.add(here + "down_bias", (hidden,), there + "down_proj.bias", Shard.REPLICATED)

    def _experts(self, here: str, there: str, experts: ExpertsSpec) -> None:
        """Experts stacked by rows, from one tensor an expert or from one tensor for all."""
        builder, hidden, width = self._builder, self._spec.hidden_size, experts.intermediate_size
        router = (experts.num_experts, hidden)
        builder.add(here + "router", router, there + "gate.weight", Shard.REPLICATED)
        numbers = range(experts.num_experts)
        gate_up = [
            (f"{there}experts.{number}.{part}.weight", width)
            for number in numbers
            for part in ("gate_proj", "up_proj")
        ]
        builder.fuse(here + "expert_gate_up", (hidden,), gate_up, Shard.EXPERTS)
        builder.or_whole(here + "expert_gate_up", there + "experts.gate_up_proj")
        down = [(f"{there}experts.{number}.down_proj.weight", hidden) for number in numbers]
        builder.fuse(here + "expert_down", (width,), down, Shard.EXPERTS)
        builder.or_whole(here + "expert_down", there + "experts.down_proj")
        self._others |= {here + name for name in ("router", "expert_gate_up", "expert_down")}
