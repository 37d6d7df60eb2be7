"""`rtp train-draft` from a model's directory to published heads."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from rtp_core.cli.main import main
from rtp_core.training import run
from rtp_core.training.publish import read_head

SMALL = (
    "--texts", "10", "--questions", "4", "--max-length", "400", "--answer-tokens", "26",
    "--held-out-tokens", "12", "--held-out-prompts", "2", "--draft-vocab", "64",
    "--step-tokens", "1024", "--max-num-seqs", "8", "--dtype", "float32", "--device", "cpu",
)  # fmt: skip


def train(model, out, *more, method="eagle_test,medusa_test", steps="2"):
    flags = ("--method", method, "--out", str(out), "--steps", steps)
    return main(["train-draft", str(model), *flags, *SMALL, *more])


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Texts are written once for all tests; `--data` takes them."""
    return tmp_path_factory.mktemp("written") / "data"


@pytest.fixture
def model(tiny_config):
    return tiny_config.model.path


def test_heads_are_published_with_origin_and_metrics(trainers, model, tmp_path, capsys, written):
    assert train(model, tmp_path / "out", "--max-shard", "1MB", "--data", str(written)) == 0
    for method in ("eagle_test", "medusa_test"):
        folder = tmp_path / "out" / method
        config = json.loads((folder / "config.json").read_text())
        assert len(config["target_fingerprint"]) == 32
        assert config["rtp"]["steps"] == 2
        assert config["rtp"]["seed"] == 0
        assert config["rtp"]["command"].startswith("rtp train-draft ")
        metrics = json.loads((folder / "metrics.json").read_text())
        assert set(metrics["held_out"]) == {"greedy", "T=0.8", "T=0.8, shared noise"}
        assert metrics["curve"]
        told = config["rtp"]["tokens_per_step"]["greedy"]["chat"]
        assert told["1"] == metrics["held_out"]["greedy"]["chat"]["tokens_per_step"]["1"]
    assert "K=1" in capsys.readouterr().out
    done = json.loads((written / "done.json").read_text())
    assert sum(done["texts"].values()) > 0
    assert done["held_out_texts"] > 0


def test_one_that_was_stopped_goes_on_with_resume_and_ends_the_same(
    trainers, model, tmp_path, monkeypatch, written
):
    assert train(model, tmp_path / "whole", "--data", str(written)) == 0
    whole = tmp_path / "whole"
    out = tmp_path / "parted"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # texts there, nothing trained
        patch.setattr(run, "load_target", stop)
        assert train(model, out, "--data", str(written)) == 130
    with monkeypatch.context() as patch:  # trained, not measured
        patch.setattr(run, "measure", stop)
        assert train(model, out, "--data", str(written), "--resume") == 130
    assert train(model, out, "--data", str(written), "--resume") == 0
    for method in ("eagle_test", "medusa_test"):
        (config, one), (other_config, other) = read_head(whole / method), read_head(out / method)
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert config["rtp"]["tokens_per_step"] == other_config["rtp"]["tokens_per_step"]


def test_without_resume_a_directory_with_files_is_left_alone(trainers, model, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    assert train(model, out) == 1
    assert "is not empty (pass --resume" in capsys.readouterr().err
    (out / "letter.txt").rename(out / "training")
    assert train(model, out, "--resume") == 1
    assert (out / "training").read_text() == "dear"


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("eagel_test", "draft_trainer:eagel_test"),
        ("", "names no method"),
        ("eagle_test,eagle_test", "names no method, or one twice"),
    ],
)
def test_unknown_methods_are_refused_by_name(trainers, model, tmp_path, capsys, method, said):
    assert train(model, tmp_path / "out", method=method) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_weights_settings_or_methods_do_not_go_on(
    trainers, model, tiny_model, tmp_path, capsys, written
):
    out = tmp_path / "out"
    assert train(model, out, "--data", str(written), steps="1") == 0
    capsys.readouterr()
    cases = (
        (tiny_model, {}, "fingerprint"),
        (model, {"method": "medusa_test"}, "methods"),
        (model, {"steps": "9"}, "steps"),
    )
    for other, change, key in cases:
        given = {"steps": "1", **change}
        assert train(other, out, "--resume", "--data", str(written), **given) == 1
        assert f"was begun with {key}" in capsys.readouterr().err
    assert train(tiny_model, tmp_path / "new", "--data", str(written)) == 1
    assert "--data" in capsys.readouterr().err


def test_a_model_without_weights_or_none_at_all_is_refused(trainers, model, tmp_path, capsys):
    hollow = tmp_path / "hollow"
    shutil.copytree(model, hollow, ignore=shutil.ignore_patterns("*.safetensors"))
    assert train(hollow, tmp_path / "out") == 1
    assert "hollow" in capsys.readouterr().err
    assert train(tmp_path / "nowhere", tmp_path / "out") == 1
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sizes_of_shards_are_read_or_refused(trainers, model, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train(model, tmp_path / "out", "--max-shard", "fifteen")
    assert stop.value.code == 2
    assert "write it as 15MB" in capsys.readouterr().err


def test_texts_longer_than_the_model_takes_are_refused(trainers, model, tmp_path, capsys):
    assert train(model, tmp_path / "out", "--max-length", "513") == 1
    assert "512 positions" in capsys.readouterr().err
