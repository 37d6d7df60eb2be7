"""Quantized checkpoints that contradict themselves: named from headers, before any allocation."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import quantized_files as files

from rtp_core.api import ParameterSpec, WeightRule, WeightTable
from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights

MODULE = "model.layers.0.mlp.down_proj"
WEIGHT = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
GROUPED = files.weights_of(group_size=32)
PACKED = files.compressed_config(GROUPED)
TABLE = WeightTable(
    (ParameterSpec("down", (32, 64), "float32"),),
    (WeightRule(f"{MODULE}.weight", "down", 0, 32),),
)


def write(folder, parts, quantization, module=MODULE, **others):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    tensors = {f"{module}.{name}": one for name, one in parts.items() if one is not None}
    files.write_shards(folder, tensors | others)
    return folder


def refuse(folder, parts, quantization, message, error=WeightLoadError, **how):
    with pytest.raises(error, match=message) as caught:
        plan_weights(TABLE, open_checkpoint(write(folder, parts, quantization, **how)))
    return caught.value


# -- formats by name -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["bitsandbytes", "hqq", "auto-round", "quark", "modelopt", "fbgemm_fp8", "AWQ"]
)
def test_formats_that_are_not_read_are_named_with_the_remedy(tmp_path, method):
    found = refuse(tmp_path, {}, {"quant_method": method}, f"quant_method is '{method}'",
                   ModelError, x=torch.zeros(1))  # fmt: skip
    assert found.remedy.endswith("fp8, compressed-tensors, awq, gptq")


def test_mxfp4_is_refused_with_the_reason(tmp_path):
    message = "mxfp4 is not read: 4-bit floats .* gpt-oss"
    refuse(tmp_path, {}, {"quant_method": "mxfp4"}, message, ModelError, x=torch.zeros(1))


@pytest.mark.parametrize("found", [{"load_in_4bit": True}, {"quant_method": 4}, "awq", [1], True])
def test_a_section_that_says_nothing_usable(tmp_path, found):
    message = r"config\.json: quantization_config"
    refuse(tmp_path, {}, found, message, ModelError, x=torch.zeros(1))


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (files.awq_config(bits=8), "bits is 8, expected 4"),
        (files.awq_config(bits=True), "bits is True"),
        (files.awq_config(version="gemv"), "version is 'gemv', expected gemm"),
        (files.awq_config(zero_point=False), "zero_point is False"),
        (files.awq_config(group_size=0), "group_size is 0"),
        (files.awq_config(group_size="128"), "group_size is '128'"),
        (files.awq_config(modules_to_not_convert="lm_head"), "modules_to_not_convert is 'lm_h"),
        (files.gptq_config(5), "bits is 5"),
        (files.gptq_config(checkpoint_format="marlin"), "checkpoint_format is 'marlin'"),
        (files.gptq_config(is_marlin_format=True), "is_marlin_format is True"),
        (files.gptq_config(desc_act=1), "desc_act is 1"),
        (files.gptq_config(pack_dtype="int16"), "pack_dtype is 'int16'"),
        (files.gptq_config(dynamic={"+:.*": {"bits": 8}}), "dynamic is"),
        (files.fp8_config((128, 0)), "weight_block_size is 0"),
        (files.fp8_config(weight_block_size=128), "weight_block_size is 128"),
        (files.fp8_config(fmt="e5m2"), "fmt is 'e5m2'"),
        (files.fp8_config(activation_scheme="x"), "activation_scheme is 'x'"),
        (files.compressed_config(GROUPED, "nvfp4-pack-quantized"), "format is 'nvfp4-pack"),
        (files.compressed_config({**GROUPED, "num_bits": 5}), "num_bits is 5"),
        (files.compressed_config({**GROUPED, "strategy": "tensor_group"}), "strategy is 'tens"),
        (files.compressed_config({**GROUPED, "group_size": None}), "group_size is None"),
        (files.compressed_config(files.weights_of("float", 4)), "num_bits is 4, expected 8"),
        (
            files.compressed_config(files.weights_of("float", 8, "block", block_structure="8")),
            "block_structure is '8'",
        ),
        (files.compressed_config(GROUPED, ignore=["re:("]), "has the pattern 're:\\('"),
        (files.compressed_config(GROUPED, ignore=["re:" + "a" * 999]), "at most 500 characters"),
        (files.compressed_config(GROUPED, targets=("re:[",)), "has the pattern 're:\\['"),
        (files.compressed_config(GROUPED, config_groups=[]), "config_groups is \\[\\]"),
        (
            files.compressed_config(GROUPED, sparsity_config={"format": "sparse-24-bitmask"}),
            "sparsity_config.format is 'sparse-24",
        ),
        (
            files.compressed_config(GROUPED, transform_config={"config_groups": {"R1": {}}}),
            "transform_config is 'an online",
        ),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_honoured_name_the_key(tmp_path, config, key):
    message = rf"config\.json: quantization_config.*{key}"
    refuse(tmp_path, {}, config, message, ModelError, x=torch.zeros(1))


# -- which modules ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [MODULE, "model.layers.0", "down_proj", "model.layers.0.mlp"])
def test_a_quantized_module_that_the_file_excludes(tmp_path, name):
    parts, _ = files.awq(WEIGHT)
    config = files.awq_config(modules_to_not_convert=[name])
    refuse(tmp_path, parts, config, f"names '{name}', but {MODULE} is quantized", ModelError)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.down", "layers.1", "lm_head", "proj"])
def test_names_that_only_begin_alike_exclude_nothing(tmp_path, name):
    parts, _ = files.fp8(WEIGHT, (16, 16))
    config = files.fp8_config((16, 16), modules_to_not_convert=[name])
    open_checkpoint(write(tmp_path, parts, config))


@pytest.mark.parametrize("name", [MODULE, r"re:.*down", r"re:model\.layers\.0\."])
def test_a_packed_module_that_is_ignored(tmp_path, name):
    parts, _ = files.packed(WEIGHT)
    config = files.compressed_config(GROUPED, ignore=[name])
    refuse(tmp_path, parts, config, f"{MODULE} is quantized, but .* ignore names", ModelError)


def test_a_packed_module_that_nothing_targets(tmp_path):
    parts, _ = files.packed(WEIGHT)
    config = files.compressed_config(GROUPED, targets=["re:.*up_proj", "lm_head"])
    refuse(tmp_path, parts, config, "no target of config_groups names it", ModelError)


@pytest.mark.parametrize(
    ("targets", "bits"),
    [
        ({"a": "Linear", "b": "re:.*down"}, 8),
        ({"b": "re:.*down", "a": "Linear"}, 8),
        ({"b": "re:.*down", "c": MODULE}, 4),
        ({"c": MODULE, "a": "Linear"}, 4),
    ],
)
def test_a_name_goes_before_a_pattern_and_a_pattern_before_the_class(tmp_path, targets, bits):
    width = {"a": 2, "b": 8, "c": 4}
    groups = {
        name: {"targets": [target], "weights": {**GROUPED, "num_bits": width[name]}}
        for name, target in targets.items()
    }
    parts, meaning = files.packed(WEIGHT, bits)
    config = files.compressed_config(GROUPED, config_groups=groups)
    plan = plan_weights(TABLE, open_checkpoint(write(tmp_path, parts, config)))
    found, _ = load_weights(plan, MmapLoader(), "cpu", lambda done: None)
    assert torch.equal(found["down"], torch.from_numpy(meaning))


def test_the_older_name_of_the_section_is_read(tmp_path):
    parts, _ = files.packed(WEIGHT)
    write(tmp_path, parts, PACKED)
    config = json.loads((tmp_path / "config.json").read_text())
    config = {"compression_config": config["quantization_config"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = open_checkpoint(tmp_path)
    assert found.quantization.kinds == {"int4, groups of 32": 1}
    assert found.config == {}


# -- parts -----------------------------------------------------------------------------------

FORMATS = {
    "awq": (files.awq, files.awq_config()),
    "gptq": (files.gptq, files.gptq_config()),
    "packed": (files.packed, PACKED),
    "asymmetric": (
        partial(files.packed, symmetric=False),
        files.compressed_config({**GROUPED, "symmetric": False}),
    ),
    "int8": (
        files.int8,
        files.compressed_config(files.weights_of(bits=8, strategy="channel"), "int-quantized"),
    ),
    "blocks": (partial(files.fp8, block=(16, 16)), files.fp8_config((16, 16))),
    "compressed blocks": (
        partial(files.compressed_float, block=(16, 16)),
        files.compressed_config(
            files.weights_of("float", 8, "block", block_structure="16x16"), "float-quantized"
        ),
    ),
}
EVERY_PART = [
    (kind, part) for kind, (make, _) in FORMATS.items() for part in make(WEIGHT)[0]
]  # fmt: skip
OPTIONAL = {("gptq", "g_idx")}
CHANGES = {
    "longer": lambda one: torch.cat([one, one]),
    "shorter": lambda one: one[:-1],
    "flat": lambda one: torch.cat([one.flatten(), one.flatten()[:1]]),
    "empty": lambda one: one[:0],
    "deeper": lambda one: one[None, None],
}
LIES = [[32, 65], [32, 72], [64, 32], [31, 64], [32, 0], [0, 0], [-32, 64], [2**40, 2**40]]


@pytest.mark.parametrize(("kind", "part"), EVERY_PART)
def test_a_part_that_is_missing(tmp_path, kind, part):
    make, config = FORMATS[kind]
    parts, _ = make(WEIGHT)
    del parts[part]
    if (kind, part) in OPTIONAL:
        plan_weights(TABLE, open_checkpoint(write(tmp_path, parts, config)))
        return
    codes = part in ("qweight", "weight_packed", "weight")
    names = f"{MODULE}.weight" if codes else f"{MODULE}.{part}"
    refuse(tmp_path, parts, config, f"missing: {names}")


@pytest.mark.parametrize(("kind", "part"), EVERY_PART)
def test_a_part_of_another_dtype(tmp_path, kind, part):
    make, config = FORMATS[kind]
    parts, _ = make(WEIGHT)
    parts[part] = torch.zeros(parts[part].shape, dtype=torch.float64)
    found = refuse(tmp_path, parts, config, r"dtype F64|missing|unexpected")
    if part != "weight":
        assert found.tensor == f"{MODULE}.{part}"
        assert "expected" in str(found)


@pytest.mark.parametrize(("kind", "part"), EVERY_PART)
@pytest.mark.parametrize("change", CHANGES)
def test_a_part_of_another_shape(tmp_path, kind, part, change):
    make, config = FORMATS[kind]
    parts, _ = make(WEIGHT)
    one = parts[part]
    plain = one.view(torch.uint8) if one.element_size() == 1 else one
    parts[part] = CHANGES[change](plain).contiguous().view(one.dtype)
    found = refuse(tmp_path, parts, config, "shape|not whole groups|whole words")
    assert found.tensor.startswith(MODULE)


@pytest.mark.parametrize("shape", LIES)
def test_a_weight_shape_that_lies(tmp_path, shape):
    parts, _ = files.packed(WEIGHT)
    parts["weight_shape"] = torch.tensor(shape)
    refuse(tmp_path, parts, PACKED, "weight_shape says|not whole groups")


def test_a_weight_shape_within_the_last_word_is_still_checked_against_the_model(tmp_path):
    parts, _ = files.packed(WEIGHT, group=None)
    parts["weight_shape"] = torch.tensor([32, 61])
    config = files.compressed_config(files.weights_of(strategy="channel"))
    refuse(tmp_path, parts, config, r"shape \[32, 61\], the configuration says \[32, 64\]")


@pytest.mark.parametrize("kind", ["awq", "gptq", "packed"])
def test_groups_that_do_not_divide_the_inputs(tmp_path, kind):
    make, config = FORMATS[kind]
    parts, _ = make(WEIGHT)
    if kind == "packed":
        config = files.compressed_config({**GROUPED, "group_size": 48})
    else:
        config = {**config, "group_size": 48}
    refuse(tmp_path, parts, config, "its 64 inputs are not whole groups of 48")


def test_another_group_size_than_the_scales_have(tmp_path):
    parts, _ = files.awq(WEIGHT, 32)
    refuse(tmp_path, parts, files.awq_config(64), r"shape \[2, 4\], expected \[1, 4\]")


def test_a_weight_that_does_not_fit_the_model(tmp_path):
    parts, _ = files.awq(np.ones((32, 96), np.float32))
    message = r"shape \[32, 96\], the configuration says \[32, 64\]"
    refuse(tmp_path, parts, files.awq_config(), message)


def test_a_weight_stored_twice(tmp_path):
    parts, _ = files.awq(WEIGHT)
    parts["weight"] = torch.from_numpy(WEIGHT)
    refuse(tmp_path, parts, files.awq_config(), "stored twice, also in parts as")


@pytest.mark.parametrize("index", [-1, 2, 2**31 - 1])
@pytest.mark.parametrize("kind", ["gptq", "packed"])
def test_an_index_beyond_the_groups(tmp_path, kind, index):
    make, config = FORMATS[kind]
    parts, _ = make(WEIGHT, order=np.arange(64))
    name = "g_idx" if kind == "gptq" else "weight_g_idx"
    parts[name][5] = index
    plan = plan_weights(TABLE, open_checkpoint(write(tmp_path, parts, config)))
    with pytest.raises(WeightLoadError, match=f"{MODULE}.weight: group {index} in the index"):
        load_weights(plan, MmapLoader(), "cpu", lambda done: None)


def test_parts_of_another_format_are_unexpected(tmp_path):
    parts, _ = files.gptq(WEIGHT)
    refuse(tmp_path, parts, files.awq_config(), "its 8 inputs are not whole groups of 32")
    parts, _ = files.awq(WEIGHT)
    write(tmp_path / "plain", parts, None)
    with pytest.raises(WeightLoadError, match=f"missing: {MODULE}.weight"):
        plan_weights(TABLE, open_checkpoint(tmp_path / "plain"))


def test_float_weights_among_quantized_ones_stay_as_they_are(tmp_path):
    parts = {"weight": torch.from_numpy(WEIGHT)}
    plan = plan_weights(TABLE, open_checkpoint(write(tmp_path, parts, files.awq_config())))
    assert [one.tensor.dtype for one in plan.placements] == ["F32"]


SKIPPED = ["self_attn.k_scale", "self_attn.v_scale", "self_attn.attn.q_scale", "kv_scale",
           "self_attn.k_proj.k_scale", "self_attn.k_proj.output_scale"]  # fmt: skip


def test_scales_of_keys_and_values_are_left_aside_and_logged(tmp_path, caplog):
    caplog.set_level("INFO", "rtp.loading")
    parts, _ = files.fp8(WEIGHT, static=True)
    others = {f"model.layers.0.{name}": torch.ones(1) for name in SKIPPED}
    config = files.fp8_config(activation_scheme="static")
    checkpoint = open_checkpoint(write(tmp_path, parts, config, **others))
    plan_weights(TABLE, checkpoint)
    skipped = checkpoint.quantization.skipped
    assert skipped["scale of cached keys and values"] == len(SKIPPED)
    assert skipped["scale of activations"] == 1
    assert "kind='scale of cached keys and values' count=6" in caplog.text


@pytest.mark.parametrize(("value", "fits"), [(0.0, True), (1e-3, False)])
def test_a_bias_that_the_model_has_not_must_be_zero(tmp_path, value, fits):
    parts, _ = files.gptq(WEIGHT)
    parts["bias"] = torch.zeros(32).half()
    parts["bias"][31] = value
    if fits:
        plan_weights(TABLE, open_checkpoint(write(tmp_path, parts, files.gptq_config())))
    else:
        refuse(tmp_path, parts, files.gptq_config(), f"unexpected: {MODULE}.bias")


# -- damage ----------------------------------------------------------------------------------

odd = st.sampled_from(
    [None, True, 0, -1, 2**70, 1e308, "", "x", "re:(", [], [1], {}, {"a": []}, [[]], ["re:a"]]
)
keys = st.sampled_from(
    ["quant_method", "bits", "group_size", "version", "desc_act", "checkpoint_format", "dynamic",
     "weight_block_size", "modules_to_not_convert", "format", "ignore", "config_groups",
     "config_groups.group_0", "config_groups.group_0.weights", "config_groups.group_0.targets",
     "config_groups.group_0.weights.num_bits", "config_groups.group_0.weights.strategy",
     "config_groups.group_0.weights.group_size", "config_groups.group_0.weights.type",
     "config_groups.group_0.weights.symmetric", "sparsity_config", "transform_config"]
)  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder a format."""
    root = tmp_path_factory.mktemp("sound")
    return {
        kind: write(root / kind.replace(" ", "_"), make(WEIGHT)[0], config)
        for kind, (make, config) in FORMATS.items()
    }


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(FORMATS)), changes=st.dictionaries(keys, odd, max_size=3))
def test_damaged_settings_give_an_error_of_ours_or_a_plan(sound, kind, changes):
    config = json.loads(json.dumps(FORMATS[kind][1]))
    for key, value in changes.items():
        place, *path = config, *key.split(".")
        for part in path[:-1]:
            place = place.get(part) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[path[-1]] = deepcopy(value)
    (sound[kind] / "config.json").write_text(json.dumps({"quantization_config": config}))
    try:
        plan = plan_weights(TABLE, open_checkpoint(sound[kind]))
    except ModelError:
        return
    load_weights(plan, MmapLoader(), "cpu", lambda done: None)
