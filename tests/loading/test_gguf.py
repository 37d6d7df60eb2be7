"""GGUF files of the gguf package are read as Hugging Face models; damaged ones are refused."""

from __future__ import annotations

import math
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from model_files import CONFIG, gguf_name, gguf_values, parameters, tensors, write_gguf

from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.gguf import read_gguf
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights
from rtp_core.models.llama import LlamaFamily

UNTIED = {"tie_word_embeddings": False}


def load(path, dtype="float32"):
    checkpoint = open_checkpoint(path)
    family = LlamaFamily()
    spec = family.spec(checkpoint.config, dtype, checkpoint.content_id)
    plan = plan_weights(family.weights(spec), checkpoint)
    return load_weights(plan, MmapLoader(), "cpu", lambda _: None)[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tiny.gguf"


@pytest.mark.parametrize("config", [{}, UNTIED, {"attention_bias": True, "mlp_bias": True}])
def test_a_model_comes_back_with_its_rows_in_hugging_face_order(path, config):
    source = tensors(config)
    found = load(write_gguf(path, source, config))
    for name, expected in parameters(source, config).items():
        assert torch.equal(found[name], expected), name


@pytest.mark.parametrize("run", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantized_models_equal_the_gguf_package(path, kind, run):
    """The package decodes; undoing the row order by index is the test's own arithmetic."""
    source = tensors()
    found = load(write_gguf(path, source, quantization=kind), run)
    values = gguf_values(path)
    expected = {}
    for name in source:
        rows = values[gguf_name(name)]
        for part, heads in (("q_proj", 4), ("k_proj", 2)):
            if part in name:
                half = rows.shape[0] // heads // 2
                order = [
                    head * 2 * half + 2 * pair + side
                    for head in range(heads)
                    for side in range(2)
                    for pair in range(half)
                ]
                rows = rows[order]
        expected[name] = torch.from_numpy(np.ascontiguousarray(rows))
    for name, wanted in parameters(expected, dtype=run).items():
        assert torch.equal(found[name], wanted), name


def test_the_configuration_is_translated(path):
    checkpoint = open_checkpoint(write_gguf(path, tensors()))
    config = dict(checkpoint.config)
    for key in (
        "architectures", "num_hidden_layers", "hidden_size", "num_attention_heads",
        "num_key_value_heads", "head_dim", "intermediate_size", "vocab_size",
        "max_position_embeddings", "tie_word_embeddings",
    ):  # fmt: skip
        assert config[key] == CONFIG[key], key
    assert config["rms_norm_eps"] == pytest.approx(1e-5)
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert (config["attention_bias"], config["mlp_bias"]) == (False, False)
    assert config["bos_token_id"] == 1
    assert checkpoint.gguf_metadata["tokenizer.ggml.tokens"][3] == "hello"


def test_control_tokens_that_end_a_turn_are_stop_tokens(path):
    """<|eot_id|> is an ordinary token in this vocabulary and stops nothing."""
    assert open_checkpoint(write_gguf(path, tensors())).config["eos_token_id"] == [2, 4]


def llama3_divisors(factor=8.0, half=8, theta=10000.0, low=1.0, high=4.0, original=8192):
    """As llama.cpp's converter writes them for Llama 3.1 and 3.2."""
    divisors = []
    for index in range(half):
        wavelength = 2 * math.pi * theta ** (2 * index / (2 * half))
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, dtype=np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_divisors_of_llama_3_become_its_parameters(path, factor):
    divisors = llama3_divisors(factor)
    write_gguf(path, tensors(), change=lambda w: w.add_tensor("rope_freqs.weight", divisors))
    checkpoint = open_checkpoint(path)
    assert checkpoint.config["rope_parameters"] == {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert len(checkpoint.tensors) == len(tensors())


@pytest.mark.parametrize("divisors", [
    llama3_divisors(original=4096), llama3_divisors(high=2.0), np.full(8, 4.0, np.float32),
    np.zeros(8, np.float32), np.full(8, np.nan, np.float32), np.full(8, np.inf, np.float32),
])  # fmt: skip
def test_other_divisors_are_refused(path, divisors):
    write_gguf(path, tensors(), change=lambda w: w.add_tensor("rope_freqs.weight", divisors))
    with pytest.raises(ModelError, match=r"rope_freqs\.weight"):
        open_checkpoint(path)


def change_key(key, value):
    def change(writer):
        for part in writer.kv_data:
            part.pop(key, None)
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            writer.add_int32(key, value)

    return change


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("general.architecture", "qwen9", "architecture 'qwen9' is not supported"),
        ("general.architecture", None, "architecture is None, expected a name"),
        ("general.architecture", ["llama"], "architecture is .*, expected a name"),
        ("llama.block_count", None, "lacks llama.block_count"),
        ("llama.block_count", 0, r"llama\.block_count is 0"),
        ("llama.block_count", -3, r"llama\.block_count is -3"),
        ("llama.attention.head_count", [4, 4], r"head_count is \[4, 4\]"),
        ("llama.attention.head_count", "4", "head_count is '4'"),
        ("llama.attention.head_count_kv", 0, "head_count_kv is 0"),
        ("llama.attention.layer_norm_rms_epsilon", "x", "epsilon is 'x'"),
        ("llama.attention.layer_norm_rms_epsilon", math.nan, "epsilon is nan"),
        ("llama.rope.freq_base", -1.0, r"freq_base is -1\.0"),
        ("llama.rope.dimension_count", 8, r"dimension_count is 8, expected the head size 16"),
        ("llama.rope.dimension_count", 18, r"dimension_count is 18, expected an even number"),
        (
            "llama.rope.scaling.type",
            "longrope",
            r"scaling\.type is 'longrope', expected none, linear",
        ),
        (
            "llama.attention.value_length",
            8,
            r"value_length is 8, expected attention\.key_length 16",
        ),
        ("llama.attention.clamp_kqv", 8.0, r"clamp_kqv is 8\.0, expected 0"),
        ("llama.attention.q_lora_rank", 8, r"q_lora_rank is not known .*safetensors"),
        ("llama.logit_scale", 0.5, r"logit_scale is 0\.5, expected 0 or 1"),
        ("general.type", "adapter", r"general\.type is 'adapter', expected 'model'"),
        ("tokenizer.ggml.eos_token_id", 128, r"eos_token_id is 128, expected an id below 128"),
        ("tokenizer.ggml.bos_token_id", -1, r"bos_token_id is -1, expected an id below 128"),
        ("tokenizer.ggml.tokens", ["a"] * 129, r"expected a row for each of 129 tokenizer"),
        ("tokenizer.ggml.tokens", 3, r"tokenizer\.ggml\.tokens is 3"),
        ("tokenizer.ggml.eos_token_id", "2", r"eos_token_id is '2'"),
        ("split.count", 2, r"one of 2 parts.*gguf-split"),
    ],
)
def test_metadata_that_cannot_be_used_is_named(path, key, value, message):
    write_gguf(path, tensors(), change=change_key(key, value))
    with pytest.raises(ModelError, match=message) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)


def test_yarn_counts_from_the_length_the_file_names(path):
    def change(writer):
        change_key("llama.rope.scaling.type", "yarn")(writer)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(64)

    write_gguf(path, tensors(), change=change)
    rope = LlamaFamily().spec(open_checkpoint(path).config, "float32", "x").rope
    assert (rope.kind, rope.factor, rope.original_max_position) == ("yarn", 4.0, 64)


def test_an_unknown_tensor_is_named(path):
    extra = np.zeros(32, np.float32)
    write_gguf(path, tensors(), change=lambda w: w.add_tensor("blk.0.ffn_gate_inp.weight", extra))
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_gate_inp\.weight is not known"):
        open_checkpoint(path)


def test_a_model_without_embedding(path):
    source = tensors()
    del source["model.embed_tokens.weight"]
    write_gguf(path, source)
    with pytest.raises(ModelError, match="token_embd"):
        open_checkpoint(path)


class TestContentId:
    def test_another_template_is_another_model(self, path, tmp_path):
        """The tokenizer is rebuilt from metadata and kept by this id."""
        one = write_gguf(path, tensors(), change=change_key("tokenizer.chat_template", "a"))
        other = write_gguf(
            tmp_path / "o.gguf", tensors(), change=change_key("tokenizer.chat_template", "b")
        )
        assert open_checkpoint(one).content_id != open_checkpoint(other).content_id

    def test_other_weights_are_another_model(self, path, tmp_path):
        one, other = write_gguf(path, tensors()), write_gguf(tmp_path / "o.gguf", tensors(seed=1))
        assert open_checkpoint(one).content_id != open_checkpoint(other).content_id

    def test_copies_are_equal(self, path, tmp_path):
        one, other = write_gguf(path, tensors()), write_gguf(tmp_path / "o.gguf", tensors())
        assert open_checkpoint(one).content_id == open_checkpoint(other).content_id


# -- damaged files -------------------------------------------------------------------------


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def raw_gguf(path, *, keys=b"", num_keys=0, entries=(), data=b"", version=3):
    """A file by hand; entries are (name, shape, type, offset)."""
    directory = b"".join(
        text(name)
        + struct.pack("<I", len(shape))
        + struct.pack(f"<{len(shape)}Q", *shape)
        + struct.pack("<IQ", kind, offset)
        for name, shape, kind, offset in entries
    )
    head = struct.pack("<4sIQQ", b"GGUF", version, len(entries), num_keys) + keys + directory
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def refuse(path, message):
    with pytest.raises(WeightLoadError, match=message) as caught:
        read_gguf(path)
    assert str(path) in str(caught.value)


def test_the_smallest_file(path):
    file = read_gguf(raw_gguf(path, entries=[("a", (32, 3), 0, 0)], data=bytes(384)))
    assert [(one.name, one.shape, one.offset) for one in file.tensors] == [("a", (3, 32), 96)]


def test_every_metadata_type_is_read(path):
    scalars = {0: ("B", 200), 1: ("b", -3), 2: ("H", 60000), 3: ("h", -30000), 4: ("I", 2**31),
               5: ("i", -5), 6: ("f", 0.5), 7: ("?", True), 10: ("Q", 2**63), 11: ("q", -(2**62)),
               12: ("d", 0.1)}  # fmt: skip
    keys, expected = b"", {}
    for number, (form, value) in scalars.items():
        keys += text(f"s{number}") + struct.pack("<I" + form, number, value)
        keys += text(f"a{number}") + struct.pack("<IIQ2" + form, 9, number, 2, value, value)
        expected |= {f"s{number}": value, f"a{number}": [value, value]}
    keys += text("word") + struct.pack("<I", 8) + text("höher")
    keys += text("words") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("")
    keys += text("bad") + struct.pack("<IQ", 8, 1) + b"\xff"
    expected |= {"word": "höher", "words": ["a", ""], "bad": "\N{REPLACEMENT CHARACTER}"}
    found = read_gguf(raw_gguf(path, keys=keys, num_keys=len(expected))).metadata
    assert found == expected


def test_foreign_files(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    refuse(path, "Git LFS pointer")
    path.write_text("<html>")
    refuse(path, "web page")
    path.write_bytes(b"GGML" + bytes(100))
    refuse(path, "not a GGUF file")


@pytest.mark.parametrize("version", [0, 1, 4, 0x03000000])
def test_an_unknown_version(path, version):
    refuse(raw_gguf(path, version=version), f"version {version} is not supported")


def test_an_impossible_count(path):
    refuse(raw_gguf(path, num_keys=2**60), "an impossible count")


@pytest.mark.parametrize("form", [8, 9, 13, 255])
def test_arrays_of_what_cannot_be_in_one(path, form):
    keys = text("k") + struct.pack("<IIQ", 9, form, 0 if form == 8 else 1)
    if form == 8:
        assert read_gguf(raw_gguf(path, keys=keys, num_keys=1)).metadata == {"k": []}
    else:
        refuse(raw_gguf(path, keys=keys, num_keys=1), f"arrays of type {form}")


def test_an_unknown_metadata_type(path):
    refuse(raw_gguf(path, keys=text("k") + struct.pack("<I", 77), num_keys=1), "metadata type 77")


@pytest.mark.parametrize(
    "value", [struct.pack("<Ii", 5, 0), struct.pack("<Ii", 5, -32), struct.pack("<IQ", 10, 2**40),
              struct.pack("<I", 8) + text("32"), struct.pack("<If", 6, 32.0)],
)  # fmt: skip
def test_an_impossible_alignment(path, value):
    refuse(raw_gguf(path, keys=text("general.alignment") + value, num_keys=1), "alignment")


def test_another_alignment_is_followed(path):
    keys = text("general.alignment") + struct.pack("<II", 4, 256)
    raw_gguf(path, keys=keys, num_keys=1, entries=[("a", (2,), 0, 0)], data=bytes(400))
    assert read_gguf(path).tensors[0].offset == 256


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("a", (), 0, 0)], "a: 0 dimensions"),
        ([("a", (1,) * 5, 0, 0)], "a: 5 dimensions"),
        ([("a", (32,), 99, 0)], "a: tensor type 99 is not supported"),
        ([("a", (33,), 3, 0)], "a: rows of 33 are not whole Q4_1 blocks"),
        ([("a", (2**40,), 0, 0)], "a: truncated by"),
        ([("a", (32,), 0, 2**63)], "a: truncated by"),
        ([("a", (32,), 0, 0), ("a", (32,), 0, 128)], "a: stands twice"),
        ([("a", (32,), 0, 0), ("b", (32,), 0, 96)], "b: overlap at byte"),
    ],
)
def test_a_directory_that_cannot_be(path, entries, message):
    refuse(raw_gguf(path, entries=entries, data=bytes(256)), message)


def test_every_truncation_is_noticed(path):
    write_gguf(path, tensors({"num_hidden_layers": 1}), {"num_hidden_layers": 1})
    whole = path.read_bytes()
    start = min(tensor.offset for tensor in read_gguf(path).tensors)
    last = max(tensor.offset + tensor.num_bytes for tensor in read_gguf(path).tensors)
    for size in (*range(0, start, 7), start, start + 100, last - 1):
        path.write_bytes(whole[:size])
        refuse(path, "truncated" if size >= 4 else "truncated|not a GGUF")
