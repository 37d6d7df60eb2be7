"""Weights that the formats' own packages packed, and what those packages unpack from them.

`quantized_vectors.json` holds random weights of ours through compressed-tensors 0.20.0, AutoAWQ
0.2.9 (random words) and AutoGPTQ 0.7.1, tensors in base64.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rtp_core.api import ParameterSpec, WeightRule, WeightTable
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights

DTYPES = {"F16": torch.float16, "F32": torch.float32, "I32": torch.int32, "I64": torch.int64}
VECTORS = json.loads((Path(__file__).parents[1] / "data/quantized_vectors.json").read_text())


def tensor(stored):
    data = bytearray(base64.b64decode(stored["data"]))
    return torch.frombuffer(data, dtype=DTYPES[stored["dtype"]]).view(stored["shape"])


@pytest.mark.parametrize("vector", VECTORS, ids=[one["name"] for one in VECTORS])
def test_what_the_package_unpacks_is_loaded(tmp_path, vector):
    config = {"quantization_config": vector["config"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    parts = {f"m.{name}": tensor(one) for name, one in vector["parts"].items()}
    save_file(parts, tmp_path / "model.safetensors")
    expected = tensor(vector["weight"])
    rows, columns = expected.shape
    table = WeightTable(
        (ParameterSpec("w", (rows, columns), "float32"),), (WeightRule("m.weight", "w", 0, rows),)
    )
    plan = plan_weights(table, open_checkpoint(tmp_path))
    found, _ = load_weights(plan, MmapLoader(), "cpu", lambda done: None)
    torch.testing.assert_close(found["w"], expected, rtol=1e-6, atol=0)
    assert len(expected.unique()) > 3
