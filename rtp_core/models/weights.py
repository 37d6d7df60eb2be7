"""Weight tables shared by decoder families: fused, with a shard rule for every weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rtp_core.api import ModelSpec, ParameterSpec, Shard, WeightRule, WeightTable

IGNORED = ("rotary_emb.inv_freq",)


class TableBuilder:
    """Collects parameters and the rules that fill them."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._parameters: list[ParameterSpec] = []
        self._rules: list[WeightRule] = []

    def add(self, name: str, shape: tuple[int, ...], source: str, shard: Shard) -> None:
        """One checkpoint tensor fills one parameter."""
        self.fuse(name, shape[1:], ((source, shape[0]),), shard)

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

    def table(self, tables: frozenset[str] = frozenset()) -> WeightTable:
        """The finished table; `tables` are matrices that no linear operation reads."""
        parameters = tuple(
            replace(one, linear=len(one.shape) == 2 and one.name not in tables)
            for one in self._parameters
        )
        return WeightTable(parameters, tuple(self._rules), IGNORED)


def decoder_table(spec: ModelSpec) -> WeightTable:
    """Embedding, `num_layers` decoder layers, final norm, head unless tied."""
    builder = TableBuilder(spec.dtype)
    builder.add(
        "embed", (spec.vocab_size, spec.hidden_size), "model.embed_tokens.weight", Shard.VOCABULARY
    )
    for layer in range(spec.num_layers):
        _attention(builder, spec, layer)
        _mlp(builder, spec, layer)
    builder.add("norm", (spec.hidden_size,), "model.norm.weight", Shard.REPLICATED)
    if not spec.tied_head:
        head = (spec.vocab_size, spec.hidden_size)
        builder.add("head", head, "lm_head.weight", Shard.VOCABULARY)
    return builder.table(frozenset() if spec.tied_head else frozenset({"embed"}))


def _attention(builder: TableBuilder, spec: ModelSpec, layer: int) -> None:
    here, there = f"layers.{layer}", f"model.layers.{layer}"
    q_rows, kv_rows = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    norm = f"{there}.input_layernorm.weight"
    builder.add(f"{here}.attention_norm", (spec.hidden_size,), norm, Shard.REPLICATED)
    attention = f"{there}.self_attn"
    parts = (("q_proj", q_rows), ("k_proj", kv_rows), ("v_proj", kv_rows))
    weights = [(f"{attention}.{part}.weight", rows) for part, rows in parts]
    builder.fuse(f"{here}.qkv", (spec.hidden_size,), weights, Shard.KV_HEADS)
    output = f"{attention}.o_proj"
    builder.add(f"{here}.o", (spec.hidden_size, q_rows), f"{output}.weight", Shard.COLUMNS)
    if spec.attention_bias:
        biases = [(f"{attention}.{part}.bias", rows) for part, rows in parts]
        builder.fuse(f"{here}.qkv_bias", (), biases, Shard.KV_HEADS)
    if spec.attention_output_bias:
        builder.add(f"{here}.o_bias", (spec.hidden_size,), f"{output}.bias", Shard.REPLICATED)


def _mlp(builder: TableBuilder, spec: ModelSpec, layer: int) -> None:
    here, there = f"layers.{layer}", f"model.layers.{layer}"
    width, hidden = spec.intermediate_size, spec.hidden_size
    norm = f"{there}.post_attention_layernorm.weight"
    builder.add(f"{here}.mlp_norm", (hidden,), norm, Shard.REPLICATED)
    parts = ("gate_proj", "up_proj")
    weights = [(f"{there}.mlp.{part}.weight", width) for part in parts]
    builder.fuse(f"{here}.gate_up", (hidden,), weights, Shard.ROWS)
    down = f"{there}.mlp.down_proj"
    builder.add(f"{here}.down", (hidden, width), f"{down}.weight", Shard.COLUMNS)
    if spec.mlp_bias:
        biases = [(f"{there}.mlp.{part}.bias", width) for part in parts]
        builder.fuse(f"{here}.gate_up_bias", (), biases, Shard.ROWS)
        builder.add(f"{here}.down_bias", (hidden,), f"{down}.bias", Shard.REPLICATED)
