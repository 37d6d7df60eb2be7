"""docs/models.md names what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from rtp_core.loading.gguf import TENSOR_TYPES
from rtp_core.loading.gguf_architectures.registry import ARCHITECTURES
from rtp_core.loading.quantized.formats import FORMATS
from rtp_core.models.plugin import rtp_models
from rtp_core.models.rope import KINDS
from rtp_core.text.gguf_pretokenizers import SPLITS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/models.md").read_text()


def test_the_table_lists_every_architecture_on_offer():
    listed = re.findall(r"^\| `(\w+ForCausalLM)` \|", PAGE, re.MULTILINE)
    native = [offer.name for offer in rtp_models() if offer.name != "transformers"]
    assert listed == native


def test_gguf_architectures_types_and_splits_are_listed():
    part = PAGE[PAGE.index("## GGUF files") : PAGE.index("## Another architecture")]
    assert re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) == list(ARCHITECTURES)
    (types,) = re.findall(r"\*\*Types of tensors\*\*: (.*?)\. Each", part, re.DOTALL)
    assert set(re.split(r"[,;\s]+", types)) == {name for name, _, _ in TENSOR_TYPES.values()}
    (splits,) = re.findall(r"`tokenizer.ggml.pre` is\s+one of (.*?)\. For", part, re.DOTALL)
    assert tuple(re.findall(r"`([^`]+)`", splits)) == SPLITS


def test_the_table_of_quantized_formats_lists_those_that_are_read():
    (table,) = re.findall(r"\n\| format \|.*?\n\n", PAGE, re.DOTALL)
    rows = re.findall(r"^\| ([\w-]+)", table, re.MULTILINE)
    assert set(FORMATS) <= set(rows)


def test_the_manifest_lists_them_too():
    manifest = tomllib.loads((ROOT / "rtp_core/models/plugin.toml").read_text())
    assert manifest["plugin"]["provides"] == [f"model:{offer.name}" for offer in rtp_models()]


def test_every_rotary_kind_is_named():
    (line,) = re.findall(r"\*\*Rotary embeddings\*\*.*?(?=partial_rotary)", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", line)) - {
        "rope_parameters",
        "rope_theta",
        "rope_scaling",
    } == set(KINDS)
