"""Directories of weights that belong to plugins."""

from __future__ import annotations

import json
import pickle
import shlex

import numpy as np
import pytest
from safetensors.numpy import save_file

from rtp_core.api import open_stored_tensors
from rtp_core.errors import ConfigError, ModelError

FIELD = "plugins.some.head"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 4}))
    save_file({"a": np.ones((2, 3), np.float32)}, tmp_path / "one.safetensors")
    save_file({"b": np.zeros(5, np.float32)}, tmp_path / "two.safetensors")
    return tmp_path


def test_a_directory_and_a_file_of_it(folder):
    whole = open_stored_tensors(folder, FIELD)
    assert whole.config == {"hidden_size": 4}
    assert (whole.shape("a"), whole.shape("b"), whole.shape("c")) == ((2, 3), (5,), None)
    assert whole.read("a", "numpy").sum() == 6
    part = open_stored_tensors(folder / "two.safetensors", FIELD)
    assert list(part.tensors) == ["b"]


def test_a_pickle_is_refused_with_a_command_that_a_shell_takes_as_it_is(tmp_path):
    """Names of files that somebody downloaded are no code of a command that is pasted."""
    name = "x'); __import__('os').system('true') $(true) \".bin"
    file = tmp_path / name
    file.write_bytes(pickle.dumps({}))
    with pytest.raises(ConfigError) as caught:
        open_stored_tensors(tmp_path, FIELD)
    assert caught.value.field == FIELD
    words = shlex.split(caught.value.remedy.partition(": ")[2])
    assert words[:2] == ["python", "-c"]
    assert words[3:] == [str(file), str(file.with_suffix(".safetensors"))]
    compile(words[2], "command", "exec")


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda folder: (folder / "config.json").write_text("[1]"), ModelError),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), ModelError),
        (lambda folder: (folder / "config.json").write_bytes(b" " * 2**21), ModelError),
        (lambda folder: (folder / "config.json").unlink(), ConfigError),
        (lambda folder: (folder / "one.safetensors").write_bytes(b"short"), ModelError),
    ],
)
def test_damage_is_told_with_the_file(folder, damage, error):
    damage(folder)
    with pytest.raises(error, match=r"config\.json|one\.safetensors"):
        open_stored_tensors(folder, FIELD)


def test_nothing_there(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        open_stored_tensors(tmp_path / "absent", FIELD)
    with pytest.raises(ConfigError, match="holds no safetensors file"):
        open_stored_tensors(tmp_path, FIELD)
