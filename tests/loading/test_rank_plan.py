"""What ranks read and hold: together the whole model, each byte where one rank would have it."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import quantized_files
from model_files import CONFIG, DTYPES, table, tensors, write_gguf, write_model

from rtp_core.api import (
    ParameterSpec,
    Placement,
    Shard,
    TensorInfo,
    WeightPlan,
    WeightRule,
)
from rtp_core.errors import WeightLoadError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.quantized import awq, fp8
from rtp_core.loading.quantized.stored import Stored
from rtp_core.loading.quantized.tensor import PartPlacement
from rtp_core.loading.rank_plan import plan_for
from rtp_core.loading.shares import Share, held_columns, held_rows

LOADERS = {"mmap": MmapLoader, "file_order": lambda: FileOrderLoader(read_bytes=900, in_flight=3)}
quiet = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def loaded(plan, loader="mmap", **keywords):
    return load_weights(plan, LOADERS[loader](), "cpu", lambda _: None, **keywords)[0]


def expected(name, whole, spec, heads, kv_heads, rank, world):
    """A rank's part of a parameter, by slicing the whole one: written without the plan's code."""
    if spec.shard is Shard.REPLICATED:
        return whole
    if spec.shard is Shard.COLUMNS:
        return whole.chunk(world, -1)[rank]
    if spec.shard is Shard.VOCABULARY:
        padding = -len(whole) % world
        padded = torch.cat([whole, whole.new_zeros(padding, *whole.shape[1:])])
        return padded.chunk(world)[rank]
    if spec.shard is Shard.ROWS:
        return torch.cat([part.chunk(world)[rank] for part in whole.chunk(2)])
    dim = len(whole) // (heads + 2 * kv_heads)
    q, k, v = whole.split([heads * dim, kv_heads * dim, kv_heads * dim])
    if world <= kv_heads:
        return torch.cat([part.chunk(world)[rank] for part in (q, k, v)])
    head = rank // (world // kv_heads)
    kept = slice(head * dim, (head + 1) * dim)
    return torch.cat([q.chunk(world)[rank], k[kept], v[kept]])


@quiet
@given(
    heads=st.sampled_from([4, 8, 12]),
    kv_heads=st.sampled_from([1, 2, 4]),
    world=st.sampled_from([1, 2, 4]),
    vocabulary=st.sampled_from([128, 130, 131]),
    stored=st.sampled_from(["F32", "BF16"]),
    loader=st.sampled_from(sorted(LOADERS)),
)
def test_each_rank_holds_its_slices(tmp_path, heads, kv_heads, world, vocabulary, stored, loader):
    config = {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "num_hidden_layers": 1,
    }
    source = {name: one.to(DTYPES[stored]) for name, one in tensors(config).items()}
    checkpoint = open_checkpoint(write_model(tmp_path, source, config, shards=2))
    plan = plan_weights(table(config, dtype="bfloat16"), checkpoint)
    whole = loaded(plan)
    for rank in range(world):
        part = plan_for(plan, Share(rank, world, CONFIG["head_dim"]))
        found = loaded(part, loader)
        for spec, local in zip(plan.parameters, part.parameters, strict=True):
            wanted = expected(spec.name, whole[spec.name], spec, heads, kv_heads, rank, world)
            assert tuple(found[spec.name].shape) == local.shape
            assert torch.equal(found[spec.name], wanted), spec.name


@quiet
@given(
    heads=st.sampled_from([4, 8]),
    kv_heads=st.sampled_from([1, 2, 4]),
    world=st.sampled_from([2, 4]),
)
def test_ranks_read_each_byte_that_is_divided_by_rows_once(tmp_path, heads, kv_heads, world):
    config = {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    checkpoint = open_checkpoint(write_model(tmp_path, tensors(config), config))
    plan = plan_weights(table(config), checkpoint)
    counts = {one.name: [0] * one.num_bytes for one in checkpoint.tensors.values()}
    for rank in range(world):
        for one in plan_for(plan, Share(rank, world, CONFIG["head_dim"])).placements:
            first = one.tensor.offset - checkpoint.tensors[one.tensor.name].offset
            for at in range(first, first + one.tensor.num_bytes):
                counts[one.tensor.name][at] += 1
    shards = {one.name: one.shard for one in plan.parameters}
    for placement in plan.placements:
        shard = shards[placement.rule.destination]
        name, read = placement.tensor.name, set(counts[placement.tensor.name])
        if shard in (Shard.REPLICATED, Shard.COLUMNS):
            assert read == {world}, name
        elif shard is Shard.KV_HEADS and "q_proj" not in name:
            assert read == {max(1, world // kv_heads)}, name
        else:
            assert read == {1}, name


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
@pytest.mark.parametrize("keep_codes", [False, True])
def test_blocks_and_permuted_heads_of_a_gguf(tmp_path, kind, keep_codes):
    config = {"intermediate_size": 128, "hidden_size": 64}
    path = write_gguf(tmp_path / "tiny.gguf", tensors(config), config, quantization=kind)
    plan = plan_weights(table(config, dtype="bfloat16"), open_checkpoint(path))
    whole = loaded(plan, keep_codes=keep_codes)
    for rank in (0, 1):
        part = plan_for(plan, Share(rank, 2, CONFIG["head_dim"]))
        found = loaded(part, "file_order", keep_codes=keep_codes)
        for spec in plan.parameters:
            weight, one = whole[spec.name], found[spec.name]
            if keep_codes and spec.linear:
                for name in ("q", "scale", "minimum"):
                    wanted = expected(spec.name, getattr(weight.codes, name), spec, 4, 2, rank, 2)
                    assert torch.equal(getattr(one.codes, name), wanted), (spec.name, name)
                weight, one = weight.dense, one.dense
            assert torch.equal(one, expected(spec.name, weight, spec, 4, 2, rank, 2)), spec.name


FORMATS = {
    "awq": (quantized_files.awq, awq.read, quantized_files.awq_config()),
    "fp8": (
        partial(quantized_files.fp8, block=(16, 16)),
        fp8.read,
        quantized_files.fp8_config((16, 16)),
    ),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shard", [Shard.ROWS, Shard.COLUMNS])
@pytest.mark.parametrize("keep_codes", [False, True])
def test_quantized_parts_are_cut_once_they_are_weights(tmp_path, kind, shard, keep_codes):
    make, read, config = FORMATS[kind]
    parts, meant = make(np.random.default_rng(1).normal(size=(64, 128)).astype(np.float32))
    path, stored, at = tmp_path / "weights", Stored({}), 0
    with path.open("wb") as file:
        for name, part in parts.items():
            data = part.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            file.write(data)
            dtype = {torch.float16: "F16", torch.float32: "F32", torch.int32: "I32"}
            dtype = dtype.get(part.dtype, "F8_E4M3")
            full = f"m.{name}"
            stored.tensors[full] = TensorInfo(
                full, str(path), at, len(data), tuple(part.shape), dtype
            )
            at += len(data)
    read(config, stored)
    whole = stored.tensors["m.weight"]
    rule = WeightRule("m.weight", "w", 0, 64)
    placements = tuple(
        PartPlacement(part, rule, part=name, whole=whole) for name, part in whole.parts.items()
    )
    parameter = ParameterSpec("w", (64, 128), "float32", shard, linear=True)
    plan = WeightPlan((parameter,), placements, {str(path): at})
    for rank in (0, 1):
        found = loaded(plan_for(plan, Share(rank, 2, 16)), "file_order", keep_codes=keep_codes)["w"]
        wanted = torch.from_numpy(meant).chunk(2, 0 if shard is Shard.ROWS else 1)[rank]
        if keep_codes and kind == "awq":
            torch.testing.assert_close(found.codes.dense(), wanted, rtol=0, atol=0.01)
            found = found.dense
        assert torch.equal(found, wanted)


def experts_plan(path, stacked, num_experts=4, rows=6, columns=8):
    """Experts as one tensor, or two tensors an expert."""
    data = torch.randn(num_experts * rows, columns)
    path.write_bytes(data.numpy().tobytes())
    size, placements = rows * columns * 4, []
    if stacked:
        shape = (num_experts, rows, columns)
        whole = TensorInfo("all", str(path), 0, size * num_experts, shape, "F32")
        placements = [Placement(whole, WeightRule("all", "w", 0, num_experts * rows))]
    else:
        for number in range(2 * num_experts):
            name, half = f"e{number}", rows // 2
            tensor = TensorInfo(
                name, str(path), number * size // 2, size // 2, (half, columns), "F32"
            )
            placements.append(Placement(tensor, WeightRule(name, "w", number * half, half)))
    parameter = ParameterSpec("w", tuple(data.shape), "float32", Shard.EXPERTS)
    return WeightPlan((parameter,), tuple(placements), {str(path): data.nbytes}), data


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("world", [2, 4])
def test_whole_experts(tmp_path, stacked, world):
    plan, data = experts_plan(tmp_path / "x", stacked)
    for rank in range(world):
        part = plan_for(plan, Share(rank, world, 16, 4))
        assert part.num_bytes == data.nbytes // world
        assert torch.equal(loaded(part)["w"], data.chunk(world)[rank])


class TestRefusals:
    def plan(self, tmp_path, config=None, **keywords):
        checkpoint = open_checkpoint(write_model(tmp_path, tensors(config), config))
        return plan_weights(table(config), checkpoint)

    def refuse(self, plan, share, words):
        with pytest.raises(WeightLoadError, match=words) as caught:
            plan_for(plan, share)
        assert "another number of ranks" in str(caught.value)

    def test_heads(self, tmp_path):
        self.refuse(self.plan(tmp_path), Share(0, 3, 16), r"layers\.0\.qkv: 64 rows .* by 3 ranks")

    def test_key_value_heads(self, tmp_path):
        plan = self.plan(tmp_path, {"num_attention_heads": 12, "num_key_value_heads": 4})
        self.refuse(plan, Share(0, 6, 16), "4 key-value heads cannot be divided by 6 ranks")

    def test_rows(self, tmp_path):
        config = {"num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 92}
        self.refuse(self.plan(tmp_path, config), Share(0, 8, 16), r"gate_up: 92 rows")

    def test_experts(self, tmp_path):
        plan, _ = experts_plan(tmp_path / "x", stacked=True)
        self.refuse(plan, Share(0, 3, 16, 4), "w: 24 rows or columns, 6 together")

    def test_columns_inside_a_block(self, tmp_path):
        path = write_gguf(tmp_path / "tiny.gguf", tensors(), quantization="Q8_0")
        plan = plan_weights(table(), open_checkpoint(path))
        self.refuse(
            plan, Share(1, 2, 16), r"down_proj.*columns 48 to 96 are not whole blocks of 32"
        )


def test_one_rank_is_the_model_itself(tmp_path):
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, tensors())))
    assert plan_for(plan, Share(0, 1, 16)) is plan


@given(
    shard=st.sampled_from([Shard.VOCABULARY, Shard.REPLICATED, Shard.COLUMNS, Shard.ROWS]),
    rows=st.integers(1, 40).map(lambda n: 8 * n),
    world=st.sampled_from([1, 2, 4, 8]),
)
def test_rows_of_all_ranks_are_the_rows(shard, rows, world):
    """Divided rows come once, those that all hold come `world` times."""
    parameter = ParameterSpec("w", (rows, 8), "float32", shard)
    rules = [WeightRule("a", "w", 0, rows // 2), WeightRule("b", "w", rows // 2, rows // 2)]
    if shard is Shard.ROWS and rows // 2 % world:
        return
    held = []
    for rank in range(world):
        share = Share(rank, world, 8)
        for part in held_rows(parameter, rules, share):
            held.extend(part)
        columns = held_columns(parameter, share)
        if columns is not None:
            assert columns == (rank * 8 // world, (rank + 1) * 8 // world)
    times = world if shard in (Shard.REPLICATED, Shard.COLUMNS) else 1
    assert sorted(held) == sorted(list(range(rows)) * times)


def test_a_rank_whose_vocabulary_is_padding_only(tmp_path):
    data = torch.randn(5, 4)
    path = tmp_path / "x"
    path.write_bytes(data.numpy().tobytes())
    tensor = TensorInfo("t", str(path), 0, data.nbytes, (5, 4), "F32")
    parameter = ParameterSpec("w", (5, 4), "float32", Shard.VOCABULARY)
    plan = WeightPlan(
        (parameter,), (Placement(tensor, WeightRule("t", "w", 0, 5)),), {str(path): 80}
    )
    last = plan_for(plan, Share(3, 4, 16))
    assert last.placements == ()
    assert last.zero_rows == {"w": (0, 2)}
    assert not loaded(last)["w"].any()
    assert replace(last, zero_rows={}) != last
