"""Weights on a CUDA device are those that the CPU loads, whatever the file holds."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "loading"))
from model_files import DTYPES, table, tensors, write_gguf, write_model
from test_gathering import prepared

from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.rank_plan import plan_for
from rtp_core.loading.shares import Share
from rtp_core.loading.storage import DIRECT_TO_DEVICE, TO_DEVICE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LOADERS = {
    "map": MmapLoader,
    "buffered": lambda: TO_DEVICE.loader(60.0),
    "direct": lambda: DIRECT_TO_DEVICE.loader(60.0),
    "small reads": lambda: FileOrderLoader(read_bytes=3000, in_flight=8),
}
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 16}


def same(plan, loader):
    wanted, _ = load_weights(plan, MmapLoader(), "cpu", lambda _: None)
    found, _ = load_weights(plan, LOADERS[loader](), "cuda", lambda _: None)
    for name, one in wanted.items():
        assert found[name].device.type == "cuda"
        assert torch.equal(found[name].cpu(), one), name


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("stored", sorted(DTYPES))
def test_plain_dtypes(tmp_path, loader, stored):
    source = {name: one.to(DTYPES[stored]) for name, one in tensors(WIDE).items()}
    checkpoint = open_checkpoint(write_model(tmp_path, source, WIDE, shards=3))
    plan = plan_weights(table(WIDE, dtype="bfloat16"), checkpoint)
    same(plan, loader)
    same(plan_for(plan, Share(1, 2, 16)), loader)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16"])
def test_blocks_of_a_gguf(tmp_path, loader, kind):
    path = write_gguf(tmp_path / "tiny.gguf", tensors(WIDE), WIDE, quantization=kind)
    same(plan_weights(table(WIDE, dtype="bfloat16"), open_checkpoint(path)), loader)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", ["awq", "gptq", "fp8"])
def test_quantized_parts(loader, kind, tmp_path):
    plan, data, _ = prepared(kind, 20, dtype="bfloat16", rows=64, columns=128)
    path, at, places = tmp_path / "weights", 0, {}
    with path.open("wb") as file:
        for name, one in data.items():
            places[name] = at
            at += file.write(one)
    placements = tuple(
        replace(one, tensor=replace(one.tensor, file=str(path), offset=places[one.tensor.name]))
        for one in plan.placements
    )
    same(replace(plan, placements=placements, file_bytes={str(path): at}), loader)


def test_many_loads_at_once_do_not_disturb_each_other(tmp_path):
    """Slots are reused under load: thousands of copies out of a few small buffers."""
    config = {**WIDE, "num_hidden_layers": 12}
    checkpoint = open_checkpoint(write_model(tmp_path, tensors(config), config))
    plan = plan_weights(table(config), checkpoint)
    for _ in range(5):
        same(plan, "small reads")
