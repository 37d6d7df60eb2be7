"""Every block type against the gguf package's own decoder, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from rtp_core.loading import dequantize
from rtp_core.loading.dequantize import DECODABLE, decode_into
from rtp_core.loading.gguf import TENSOR_TYPES

BLOCKS = sorted(name for name, weights, _ in TENSOR_TYPES.values() if weights > 1)
SIZES = {name: (weights, num_bytes) for name, weights, num_bytes in TENSOR_TYPES.values()}
# Byte offsets of the float16 scales in a block; random bytes there could be NaN.
HALVES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip


def random_blocks(name, count, seed=0):
    """uint8 [count, bytes]: every code is possible, scales are finite float16 of both signs."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (count, SIZES[name][1]), dtype=np.uint8)
    for at in HALVES[name]:
        scales = generator.standard_normal(count).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    return blocks


def decoded(blocks, name, dtype=torch.float32):
    out = torch.full((len(blocks), SIZES[name][0]), torch.nan, dtype=dtype)
    decode_into(torch.from_numpy(blocks.reshape(-1)), name, out)
    return out


def test_all_types_of_the_directory_can_be_decoded():
    assert {name for name, _, _ in TENSOR_TYPES.values()} == DECODABLE


@pytest.mark.parametrize("name", BLOCKS)
def test_block_sizes_are_those_of_the_gguf_package(name):
    kind = gguf.GGMLQuantizationType[name]
    assert gguf.GGML_QUANT_SIZES[kind] == SIZES[name]
    number = next(number for number, entry in TENSOR_TYPES.items() if entry[0] == name)
    assert kind.value == number


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_decode_to_the_same_bits(name):
    blocks = random_blocks(name, 300)
    expected = gguf.dequantize(blocks, gguf.GGMLQuantizationType[name])
    assert np.array_equal(decoded(blocks, name).numpy(), expected)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantized_weights_come_back_close(name):
    weights = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    blocks = gguf.quantize(weights, gguf.GGMLQuantizationType[name])
    out = decoded(blocks.reshape(-1, SIZES[name][1]), name).view(8, 64)
    assert np.abs(out.numpy() - weights).max() < 0.4


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_the_edges_of_a_chunk_are_no_edges(name, extra, monkeypatch):
    monkeypatch.setattr(dequantize, "_CHUNK_WEIGHTS", 1024)
    count = 2 * 1024 // SIZES[name][0] + extra
    blocks = random_blocks(name, count, seed=2)
    expected = gguf.dequantize(blocks, gguf.GGMLQuantizationType[name])
    assert np.array_equal(decoded(blocks, name).numpy(), expected)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_rounded_once_to_the_run_dtype(name):
    blocks = random_blocks(name, 40)
    assert torch.equal(
        decoded(blocks, name, torch.bfloat16), decoded(blocks, name).to(torch.bfloat16)
    )


@pytest.mark.parametrize("run", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16"])
def test_plain_types_convert(name, run, monkeypatch):
    monkeypatch.setattr(dequantize, "_CHUNK_WEIGHTS", 100)
    stored = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16,
              "BF16": torch.bfloat16}[name]  # fmt: skip
    values = torch.randn(7, 43, generator=torch.Generator().manual_seed(0)).to(stored)
    out = torch.empty(7, 43, dtype=run)
    decode_into(values.view(torch.uint8).view(-1), name, out)
    assert torch.equal(out, values.to(run))


def test_bytes_need_not_be_aligned():
    values = torch.randn(33)
    held = bytearray(1) + bytearray(values.numpy().tobytes())
    out = torch.empty(33)
    decode_into(torch.frombuffer(held, dtype=torch.uint8, offset=1), "F32", out)
    assert torch.equal(out, values)
