"""Files of trainings: whole or not there, and read back as they were."""

from __future__ import annotations

import json

import pytest
import torch

from rtp_core.api import HeadFiles
from rtp_core.errors import ConfigError, WeightLoadError
from rtp_core.training import tensor_file
from rtp_core.training.identity import begin_or_continue
from rtp_core.training.publish import read_head, write_head
from rtp_core.training.tensor_file import metadata_of, read_tensors, save_tensors
from rtp_core.training.texts import Text, read_texts, write_texts

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b": torch.tensor([True, False, True]),
    "c": torch.tensor(7, dtype=torch.int64),
    "d": torch.ones(5, dtype=torch.bfloat16),
    "e": torch.zeros(0, 3),
}


def test_tensors_of_all_kinds_come_back(tmp_path):
    save_tensors(tmp_path / "x.safetensors", TENSORS, {"said": "so"})
    found = read_tensors(tmp_path / "x.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, one in TENSORS.items():
        assert found[name].dtype == one.dtype
        assert torch.equal(found[name], one)
    assert metadata_of(tmp_path / "x.safetensors") == {"said": "so"}


def test_other_libraries_read_them(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    save_tensors(tmp_path / "x.safetensors", TENSORS, {})
    found = safetensors.load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], one) for name, one in TENSORS.items())


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.ones(2)}, {})

    def fail(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_file, "write_tensors", fail)
    with pytest.raises(OSError, match="No space"):
        save_tensors(path, {"a": torch.zeros(2)}, {})
    assert torch.equal(read_tensors(path)["a"], torch.ones(2))


def test_texts_come_back_and_damage_is_named(tmp_path):
    texts = [Text([1, 2, 3], 1, "chat", 0.8, 5, True), Text([4], 1, "own", 0.0, 6, False)]
    write_texts(tmp_path / "t.msgpack", texts)
    assert read_texts(tmp_path / "t.msgpack") == texts
    assert texts[0].answer == [2, 3]
    (tmp_path / "t.msgpack").write_bytes(b"\xc1")
    with pytest.raises(WeightLoadError, match=r"t\.msgpack.*made again"):
        read_texts(tmp_path / "t.msgpack")


FILES = HeadFiles(
    "model.safetensors", {"kind": "x"}, {name: torch.full((100,), float(name)) for name in "1234"}
)
ORIGIN = {"fingerprint": "f" * 32, "seed": 3}


def test_a_head_in_one_file(tmp_path):
    write_head(tmp_path, FILES, ORIGIN)
    config, tensors = read_head(tmp_path)
    assert config == {"kind": "x", "target_fingerprint": "f" * 32, "rtp": ORIGIN}
    assert tensors["3"][0] == 3
    assert json.loads(metadata_of(tmp_path / "model.safetensors")["rtp"]) == ORIGIN


def test_a_head_in_parts_as_others_split_it(tmp_path):
    write_head(tmp_path, FILES, ORIGIN, max_shard_bytes=900)
    names = sorted(one.name for one in tmp_path.glob("*.safetensors"))
    assert names == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 1600
    for name, file in index["weight_map"].items():
        assert torch.equal(read_tensors(tmp_path / file)[name], FILES.tensors[name])
    assert read_head(tmp_path)[1].keys() == FILES.tensors.keys()


def test_a_head_written_again_in_other_parts_leaves_none_of_the_old(tmp_path):
    write_head(tmp_path, FILES, ORIGIN, max_shard_bytes=900)
    write_head(tmp_path, FILES, ORIGIN)
    assert [one.name for one in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]


def test_work_goes_on_only_with_equal_settings(tmp_path):
    record = {"fingerprint": "one", "steps": 3, "methods": ("a", "b")}
    begin_or_continue(tmp_path / "work", "--out", record)
    begin_or_continue(tmp_path / "work", "--out", record)
    with pytest.raises(ConfigError, match=r"--out: .*fingerprint 'one', now it is 'two'"):
        begin_or_continue(tmp_path / "work", "--out", {**record, "fingerprint": "two"})
    with pytest.raises(ConfigError, match="steps"):
        begin_or_continue(tmp_path / "work", "--out", {"fingerprint": "one", "methods": ["a", "b"]})


def test_a_folder_with_other_things_is_not_taken(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"--data: .*holds something else"):
        begin_or_continue(tmp_path, "--data", {})
