"""Every quantized format: what is packed is what arrives, whichever loader brings the bytes."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import quantized_files as files

from rtp_core.api import ParameterSpec, Shard, WeightRule, WeightTable
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.codes import coded_parameters
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights
from rtp_kernels.linear_weight import LinearWeight

LOADERS = {
    "mmap": MmapLoader,
    "file_order": FileOrderLoader,
    "small reads": lambda: FileOrderLoader(read_bytes=500, in_flight=3),
}
PARTS = ("q", "k")


def open_modules(folder, weights, make, quantization):
    """A checkpoint of modules q, k … in parts of several files; (checkpoint, what they mean)."""
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    tensors = {f"{name}.weight": torch.from_numpy(one) for name, one in weights.items()}
    stored, meant = files.quantize_tensors(tensors, make, lambda name: True)
    files.write_shards(folder, stored, shards=3)
    return open_checkpoint(folder), meant


def stacked(weights, dtype="float32"):
    """One linear parameter of all modules' rows."""
    rules, at = [], 0
    for name, one in weights.items():
        rules.append(WeightRule(f"{name}.weight", "qk", at, len(one)))
        at += len(one)
    shape = (at, next(iter(weights.values())).shape[1])
    return WeightTable((ParameterSpec("qk", shape, dtype, Shard.ROWS, linear=True),), tuple(rules))


def random_weights(rows, columns, seed):
    """Modules whose sizes and ranges differ."""
    rng = np.random.default_rng(seed)
    shapes = [rows, max(8, rows // 2 // 8 * 8)]
    return {
        name: (rng.normal(size=(count, columns)) * 10.0**power).astype(np.float32)
        for name, count, power in zip(PARTS, shapes, (0, -1), strict=True)
    }


def load(checkpoint, table, loader="mmap", *, keep_codes=False):
    plan = plan_weights(table, checkpoint)
    done = []
    found, _ = load_weights(plan, LOADERS[loader](), "cpu", done.append, keep_codes=keep_codes)
    assert sum(done) == plan.num_bytes
    return found["qk"]


def check(weights, make, quantization, loader="mmap"):
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, meant = open_modules(Path(folder), weights, make, quantization)
        found = load(checkpoint, stacked(weights), loader)
    expected = torch.cat([meant[f"{name}.weight"] for name in weights])
    assert torch.equal(found, expected)
    return checkpoint


any_loader = st.sampled_from(sorted(LOADERS))
rows_of_words = st.integers(1, 5).map(lambda count: 32 * count)
seeds = st.integers(0, 2**16)
group_counts = st.integers(1, 4)


@settings(max_examples=25, deadline=None)
@given(rows_of_words, group_counts, st.sampled_from([8, 32, 64, 128, None]), any_loader, seeds)
def test_awq(rows, groups, group, loader, seed):
    weights = random_weights(rows, groups * (group or 40), seed)
    check(weights, partial(files.awq, group=group), files.awq_config(group), loader)


@settings(max_examples=60, deadline=None)
@given(
    rows_of_words,
    group_counts,
    st.sampled_from([32, 64, 128, None]),
    st.sampled_from([2, 3, 4, 8]),
    st.booleans(),
    st.sampled_from(["gptq", "gptq_v2"]),
    st.sampled_from(["plain", "scattered", "no index"]),
    any_loader,
    seeds,
)
def test_gptq(rows, groups, group, bits, symmetric, form, order, loader, seed):
    columns = groups * (group or 64)
    weights = random_weights(rows, columns, seed)
    weights["k"] = weights["q"][:32] * 3
    scattered = order == "scattered"
    make = partial(
        files.gptq,
        bits=bits,
        group=group,
        symmetric=symmetric,
        v2=form == "gptq_v2",
        order=np.random.default_rng(seed).permutation(columns) if scattered else None,
        index=order != "no index",
    )
    config = files.gptq_config(bits, group, checkpoint_format=form, desc_act=scattered)
    check(weights, make, config, loader)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    group_counts,
    st.sampled_from([5, 32, 64, 128, None]),
    st.sampled_from([2, 4, 8]),
    st.sampled_from(["symmetric", "packed", "plain"]),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    st.booleans(),
    any_loader,
    seeds,
)
def test_packed(rows, groups, group, bits, zeros, scale_dtype, scattered, loader, seed):
    columns = groups * (group or 37)
    scattered = scattered and group is not None
    make = partial(
        files.packed,
        bits=bits,
        group=group,
        symmetric=zeros == "symmetric",
        zeros=zeros,
        scale_dtype=scale_dtype,
        order=np.random.default_rng(seed).permutation(columns) if scattered else None,
    )
    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    scheme = files.weights_of(bits=bits, symmetric=zeros == "symmetric", **strategy)
    check(random_weights(rows, columns, seed), make, files.compressed_config(scheme), loader)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 200),
    st.sampled_from(["tensor", "channel"]),
    st.booleans(),
    any_loader,
    seeds,
)
def test_int8(rows, columns, strategy, symmetric, loader, seed):
    make = partial(files.int8, strategy=strategy, symmetric=symmetric)
    scheme = files.weights_of(bits=8, strategy=strategy, symmetric=symmetric)
    config = files.compressed_config(scheme, "int-quantized")
    check(random_weights(rows, columns, seed), make, config, loader)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([(128, 128), (32, 64), (100, 7)]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float8_e8m0fnu]),
    any_loader,
    seeds,
)
def test_fp8_blocks(rows, columns, block, scale_dtype, loader, seed):
    make = partial(files.fp8, block=block, scale_dtype=scale_dtype)
    check(random_weights(rows, columns, seed), make, files.fp8_config(block), loader)


@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv"])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_fp8_with_a_scale_a_tensor_that_differs_between_fused_parts(name, static, flat):
    def make(weight):
        parts, meaning = files.fp8(weight, name=name, static=static)
        parts[name] = parts[name].view(1) if flat else parts[name].view(())
        return parts, meaning

    config = files.fp8_config(activation_scheme="static" if static else "dynamic")
    checkpoint = check(random_weights(20, 24, 0), make, config)
    skipped = checkpoint.quantization.skipped
    assert skipped == ({"scale of activations": 2} if static else {})


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 150),
    st.integers(1, 3),
    st.sampled_from(["tensor", "channel", "group", "block"]),
    any_loader,
    seeds,
)
def test_compressed_floats(rows, groups, strategy, loader, seed):
    columns = 32 * groups
    block = {
        "tensor": None, "channel": (1, columns), "group": (1, 32), "block": (64, 32),
    }[strategy]  # fmt: skip
    changes = {"group": {"group_size": 32}, "block": {"block_structure": [64, 32]}}
    scheme = files.weights_of("float", 8, strategy, **changes.get(strategy, {}))
    config = files.compressed_config(scheme, "float-quantized")
    make = partial(files.compressed_float, block=block, flat=strategy == "tensor")
    check(random_weights(rows, columns, seed), make, config, loader)


def test_every_float8_is_the_number_it_stands_for(tmp_path):
    """NaN stays NaN."""
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).view(2, 128)

    def make(weight):
        return {"weight": every, "weight_scale_inv": torch.ones(1, 1)}, every.float().numpy()

    weights = {"q": np.zeros((2, 128), np.float32)}
    checkpoint, meant = open_modules(tmp_path, weights, make, files.fp8_config((128, 128)))
    found = load(checkpoint, stacked(weights))
    torch.testing.assert_close(found, meant["q.weight"], rtol=0, atol=0, equal_nan=True)
    assert int(found.isnan().sum()) == 2


# -- codes -----------------------------------------------------------------------------------

KEPT = {
    "awq 32": (partial(files.awq, group=32), files.awq_config(32), 4),
    "awq 128": (partial(files.awq, group=128), files.awq_config(128), 4),
    "awq a row": (partial(files.awq, group=None), files.awq_config(None), 4),
    "gptq 4": (partial(files.gptq, group=64), files.gptq_config(group=64), 4),
    "gptq 3": (partial(files.gptq, bits=3), files.gptq_config(3), 4),
    "gptq 8": (partial(files.gptq, bits=8), files.gptq_config(8), 8),
    "packed 4": (
        files.packed, files.compressed_config(files.weights_of(group_size=32)), 4,
    ),
    "packed 8, bfloat16": (
        partial(files.packed, bits=8, scale_dtype=torch.bfloat16),
        files.compressed_config(files.weights_of(bits=8, group_size=32)), 8,
    ),
    "int8 a row": (
        files.int8,
        files.compressed_config(files.weights_of(bits=8, strategy="channel"), "int-quantized"), 8,
    ),
    "int8 a tensor": (
        partial(files.int8, strategy="tensor"),
        files.compressed_config(files.weights_of(bits=8, strategy="tensor"), "int-quantized"), 8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", KEPT)
@pytest.mark.parametrize("loader", LOADERS)
def test_codes_are_kept_and_mean_the_same(tmp_path, case, loader):
    """Zero points cost at most half a unit of float16 of zero * scale."""
    make, config, bits = KEPT[case]
    weights = random_weights(64, 256, 1)
    checkpoint, meant = open_modules(tmp_path, weights, make, config)
    table = stacked(weights, "bfloat16")
    assert coded_parameters(plan_weights(table, checkpoint)) == {"qk": bits}
    found = load(checkpoint, table, loader, keep_codes=True)
    expected = torch.cat([meant[f"{name}.weight"] for name in weights])
    assert isinstance(found, LinearWeight)
    assert torch.equal(found.dense, expected.bfloat16())
    assert found.codes.bits == bits
    bound = found.codes.minimum.float().abs().amax() * 2**-11
    error = (found.codes.dense() - expected).abs().max()
    exact = "awq" not in case
    assert error <= (1e-6 * expected.abs().max() if exact else bound)


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (partial(files.awq, group=16), files.awq_config(16)),
        (partial(files.fp8, block=(128, 128)), files.fp8_config((128, 128))),
        (
            partial(files.gptq, order=np.random.default_rng(0).permutation(256)),
            files.gptq_config(desc_act=True),
        ),
    ],
    ids=["groups of 16", "floats", "out of order"],
)
def test_what_group_codes_cannot_hold_is_planned_dense(tmp_path, make, config):
    weights = random_weights(32, 256, 1)
    checkpoint, meant = open_modules(tmp_path, weights, make, config)
    table = stacked(weights, "bfloat16")
    assert coded_parameters(plan_weights(table, checkpoint)) == {}
    expected = torch.cat([meant[f"{name}.weight"] for name in weights])
    assert torch.equal(load(checkpoint, table, keep_codes=True), expected.bfloat16())


def test_a_fused_part_that_is_not_quantized_makes_all_of_it_dense(tmp_path):
    weights = random_weights(32, 64, 1)
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": files.awq_config()}))
    tensors = {f"{name}.weight": torch.from_numpy(one) for name, one in weights.items()}
    stored, meant = files.quantize_tensors(tensors, files.awq, lambda name: name == "q.weight")
    files.write_shards(tmp_path, stored)
    table = stacked(weights, "bfloat16")
    found = load(open_checkpoint(tmp_path), table, keep_codes=True)
    assert torch.equal(found, torch.cat(list(meant.values())).bfloat16())


def scattered_although_not_said(weight):
    return files.gptq(weight, order=np.random.default_rng(0).permutation(weight.shape[1]))


def test_codes_that_turn_out_not_to_fit_are_dropped_with_a_warning(tmp_path, caplog):
    """An index out of order that desc_act did not announce."""
    weights = random_weights(32, 64, 1)
    make = scattered_although_not_said
    checkpoint, meant = open_modules(tmp_path, weights, make, files.gptq_config())
    table = stacked(weights, "bfloat16")
    assert coded_parameters(plan_weights(table, checkpoint)) == {"qk": 4}
    found = load(checkpoint, table, keep_codes=True)
    expected = torch.cat([meant[f"{name}.weight"] for name in weights])
    assert torch.equal(found, expected.bfloat16())
    assert "codes_not_kept" in caplog.text


@pytest.mark.parametrize("scale", [1e-7, 1e6, float("nan"), float("inf")])
def test_scales_that_float16_cannot_hold_stay_dense(tmp_path, scale):
    def make(weight):
        parts, meaning = files.packed(weight, scale_dtype=torch.float32)
        parts["weight_scale"].fill_(scale)
        return parts, meaning

    config = files.compressed_config(files.weights_of(group_size=32))
    weights = random_weights(32, 64, 1)
    checkpoint, _ = open_modules(tmp_path, weights, make, config)
    assert isinstance(load(checkpoint, stacked(weights), keep_codes=True), torch.Tensor)
