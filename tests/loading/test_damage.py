"""Any damage to a file ends in a model or in a ModelError, within bounded memory."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from model_files import tensors, write_gguf, write_model

from rtp_core.errors import ModelError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights
from rtp_core.models.llama import LlamaFamily

ONE_LAYER = {"num_hidden_layers": 1}
MOST_BYTES = 16 * 2**20
"""Python's own memory; the files have some 100 KB, the reads 4 MiB."""


def use(path, loader):
    """The way of a model up to its parameters."""
    checkpoint = open_checkpoint(path)
    family = LlamaFamily()
    spec = family.spec(checkpoint.config, "float32", checkpoint.content_id)
    plan = plan_weights(family.weights(spec), checkpoint)
    wanted = sum(placement.tensor.num_bytes for placement in plan.placements)
    assert wanted <= sum(plan.file_bytes.values())
    return load_weights(plan, loader, "cpu", lambda _: None)[0]


def use_damaged(path, loader):
    tracemalloc.start()
    try:
        with contextlib.suppress(ModelError):
            use(path, loader)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MOST_BYTES


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Sound models, and a folder for the damaged copies."""
    root = tmp_path_factory.mktemp("damage")
    source = tensors(ONE_LAYER)
    write_model(root / "plain", source, ONE_LAYER)
    write_model(root / "sharded", source, ONE_LAYER, shards=2)
    write_gguf(root / "tiny.gguf", source, ONE_LAYER, quantization="Q4_1")
    for sound in ("plain", "sharded", "tiny.gguf"):
        use(root / sound, MmapLoader())
    return root


damages = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("cut"), st.floats(0, 0.05), st.just(0)),
    *(
        st.lists(st.tuples(st.floats(0, end), st.integers(0, 255)), min_size=1, max_size=4).map(
            lambda flips: ("flip", flips, 0)
        )
        for end in (1.0, 0.02)
    ),
    st.tuples(st.just("insert"), st.floats(0, 0.05), st.binary(min_size=1, max_size=9)),
)
"""Most of them near the start, where headers are."""


def damaged(data, damage):
    kind, where, what = damage
    if kind == "cut":
        return data[: int(where * len(data))]
    if kind == "insert":
        at = int(where * len(data))
        return data[:at] + what + data[at:]
    changed = bytearray(data)
    for place, value in where:
        changed[min(int(place * len(data)), len(data) - 1)] = value
    return bytes(changed)


quick = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
loaders = st.sampled_from([MmapLoader, FileOrderLoader])


@quick
@given(damage=damages, make=loaders)
def test_safetensors(models, damage, make):
    folder = models / "broken"
    folder.mkdir(exist_ok=True)
    shutil.copy(models / "plain" / "config.json", folder)
    data = (models / "plain" / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(damaged(data, damage))
    use_damaged(folder, make())


@quick
@given(damage=damages, name=st.sampled_from(["config.json", "model.safetensors.index.json"]))
def test_configuration_and_index(models, damage, name):
    folder = models / "broken-json"
    if not folder.exists():
        shutil.copytree(models / "sharded", folder)
    sound = models / "sharded" / name
    (folder / name).write_bytes(damaged(sound.read_bytes(), damage))
    try:
        use_damaged(folder, MmapLoader())
    finally:
        shutil.copy(sound, folder / name)


@quick
@given(damage=damages, make=loaders)
def test_gguf(models, damage, make):
    path = models / "broken.gguf"
    path.write_bytes(damaged((models / "tiny.gguf").read_bytes(), damage))
    use_damaged(path, make())


_KEYS = [
    "num_hidden_layers",
    "hidden_size",
    "head_dim",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "intermediate_size",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rms_norm_eps",
    "partial_rotary_factor",
    "max_position_embeddings",
    "tie_word_embeddings",
    "attention_bias",
    "hidden_act",
    "quantization_config",
]
_LLAMA3 = {"rope_type": "llama3", "factor": 0, "low_freq_factor": 1, "high_freq_factor": 1}
_VALUES = [
    *(None, True, False, 0, 1, -1, 3, 2**31, 10**400, 0.0, 1e-300, 1e308, float("nan"), "", "8"),
    *([], [8], {}, {"rope_type": "llama3"}, {"type": []}, {"full_attention": {}}, _LLAMA3),
]


@settings(quick, max_examples=400)
@given(changes=st.dictionaries(st.sampled_from(_KEYS), st.sampled_from(_VALUES), max_size=3))
def test_values_of_any_kind_in_a_configuration(models, changes):
    checkpoint = open_checkpoint(models / "plain")
    family = LlamaFamily()
    with contextlib.suppress(ModelError):
        spec = family.spec({**checkpoint.config, **changes}, "float32", "x")
        plan_weights(family.weights(spec), checkpoint)
