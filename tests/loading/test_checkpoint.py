"""Model directories: what is missing or suspicious is named before a weight is read."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from model_files import CONFIG, tensors, write_index, write_model, write_raw

from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.loading.checkpoint import open_checkpoint

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def source():
    return tensors()


@pytest.fixture
def model(tmp_path, source):
    return write_model(tmp_path / "model", source)


@pytest.fixture
def sharded(tmp_path, source):
    return write_model(tmp_path / "sharded", source, shards=3)


def test_a_directory_is_read(model, source):
    checkpoint = open_checkpoint(model)
    assert checkpoint.kind == "safetensors"
    assert dict(checkpoint.config) == CONFIG
    assert set(checkpoint.tensors) == set(source)
    assert checkpoint.generation_config == {}
    assert checkpoint.gguf_metadata is None


def test_shards_are_found_by_the_index(sharded, source):
    found = open_checkpoint(sharded).tensors
    assert set(found) == set(source)
    assert len({one.file for one in found.values()}) == 3


def test_generation_config_is_read(model):
    (model / "generation_config.json").write_text('{"temperature": 0.6}')
    assert open_checkpoint(model).generation_config == {"temperature": 0.6}


def test_the_consolidated_copy_is_ignored(model, source):
    shutil.copy(model / "model.safetensors", model / "consolidated.safetensors")
    assert set(open_checkpoint(model).tensors) == set(source)


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        open_checkpoint(tmp_path / "nothing")


def test_a_path_too_long_for_the_system(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        open_checkpoint(tmp_path / ("x" * 5000))


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "model.txt"
    path.write_bytes(b"x")
    with pytest.raises(ModelError, match=r"neither a \.gguf file nor a model directory"):
        open_checkpoint(path)


def test_config_is_missing(model):
    (model / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        open_checkpoint(model)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[" * 200_000, "not JSON"), ('{"a":' * 200_000, "not JSON"),
     ("[1]", "not a JSON object"), ("", "not JSON")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", INDEX])
def test_a_file_that_is_no_json_object(model, name, text, message):
    (model / name).write_text(text)
    with pytest.raises(ModelError, match=message) as caught:
        open_checkpoint(model)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "x.ckpt"])
def test_pickles_are_refused(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"pickled weights only.*convert them to safetensors"):
        open_checkpoint(tmp_path)


def test_no_weights_at_all(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        open_checkpoint(tmp_path)


def test_a_gguf_in_a_directory_is_pointed_at(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"pass .*tiny\.gguf itself"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_files(model):
    shutil.copy(model / "model.safetensors", model / "other.safetensors")
    with pytest.raises(WeightLoadError, match=r"also in .*model\.safetensors"):
        open_checkpoint(model)


def test_a_tensor_in_two_shards_of_the_index(sharded, source):
    first = sorted(sharded.glob("*.safetensors"))[0]
    name = next(iter(source))
    write_raw(first, {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
    moved = sorted(sharded.glob("*.safetensors"))[1]
    shutil.copy(first, moved)
    with pytest.raises(WeightLoadError, match="also in"):
        open_checkpoint(sharded)


def weight_map(folder):
    return json.loads((folder / INDEX).read_text())["weight_map"]


def test_a_shard_is_missing(sharded):
    (sharded / "model-2-of-3.safetensors").unlink()
    with pytest.raises(WeightLoadError, match=r"shard model-2-of-3\.safetensors not found"):
        open_checkpoint(sharded)


def test_a_tensor_is_in_another_shard_than_the_index_says(sharded):
    entries = weight_map(sharded)
    entries["model.norm.weight"] = next(
        shard for shard in entries.values() if shard != entries["model.norm.weight"]
    )
    write_index(sharded, entries)
    with pytest.raises(WeightLoadError, match=r"model\.norm\.weight: not in model-"):
        open_checkpoint(sharded)


def test_a_tensor_of_the_index_is_nowhere(sharded):
    write_index(sharded, {**weight_map(sharded), "ghost": "model-1-of-3.safetensors"})
    with pytest.raises(WeightLoadError, match="ghost: not in model-1-of-3"):
        open_checkpoint(sharded)


def test_a_tensor_twice_in_the_index(sharded):
    text = (sharded / INDEX).read_text()
    twice = '"weight_map": {"model.norm.weight": "model-1-of-3.safetensors", '
    (sharded / INDEX).write_text(text.replace('"weight_map": {', twice))
    with pytest.raises(WeightLoadError, match=r"'model\.norm\.weight' stands twice"):
        open_checkpoint(sharded)


@pytest.mark.parametrize(
    "shard",
    ["../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "pytorch_model.bin",
     "/etc/passwd", "", "..", 3, None, ["x.safetensors"], {}],
)  # fmt: skip
def test_a_shard_outside_the_folder(sharded, shard):
    write_index(sharded, {**weight_map(sharded), "model.norm.weight": shard})
    with pytest.raises(WeightLoadError, match="outside the model"):
        open_checkpoint(sharded)


@pytest.mark.parametrize("shard", ["a\0b.safetensors", "\ud800.safetensors"])
def test_a_shard_no_system_can_name(sharded, shard):
    write_index(sharded, {**weight_map(sharded), "model.norm.weight": shard})
    with pytest.raises(WeightLoadError, match="not found"):
        open_checkpoint(sharded)


@pytest.mark.parametrize("entries", [{}, [], None, 3])
def test_an_index_without_a_map(sharded, entries):
    write_index(sharded, entries)
    with pytest.raises(WeightLoadError, match="weight_map is missing or empty"):
        open_checkpoint(sharded)


def test_a_hub_cache_of_links_is_read(tmp_path, sharded, source):
    """Snapshots link to blobs elsewhere: the names count, not where the links lead."""
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sharded.iterdir()):
        blob = tmp_path / f"blob-{number}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(blob)
    assert set(open_checkpoint(snapshot).tensors) == set(source)


def test_a_file_that_may_not_be_read(model, monkeypatch):
    real = Path.open

    def refuse(self, *arguments, **keywords):
        if self.name == "model.safetensors":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read: Permission denied"):
        open_checkpoint(model)


def test_a_name_with_a_lone_surrogate_does_not_stop_the_hash(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    raw = rb'{"\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    write_raw(tmp_path / "model.safetensors", raw, bytes(4))
    assert list(open_checkpoint(tmp_path).tensors) == ["\ud800"]


class TestContentId:
    def test_copies_are_equal(self, model, tmp_path):
        there = tmp_path / "copy"
        shutil.copytree(model, there)
        assert open_checkpoint(model).content_id == open_checkpoint(there).content_id

    def test_sharding_does_not_matter(self, model, sharded):
        assert open_checkpoint(model).content_id == open_checkpoint(sharded).content_id

    def test_other_weights_differ(self, model, tmp_path):
        other = write_model(tmp_path / "other", tensors(seed=1))
        assert open_checkpoint(model).content_id != open_checkpoint(other).content_id

    def test_another_configuration_differs(self, model):
        before = open_checkpoint(model).content_id
        changed = {**CONFIG, "rms_norm_eps": 1e-6}
        (model / "config.json").write_text(json.dumps(changed))
        assert open_checkpoint(model).content_id != before

    def test_time_stamps_do_not_matter(self, model):
        before = open_checkpoint(model).content_id
        os.utime(model / "model.safetensors", (1, 1))
        assert open_checkpoint(model).content_id == before
