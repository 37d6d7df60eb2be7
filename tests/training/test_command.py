"""`rtp train-draft` from a model's directory to published heads."""

from __future__ import annotations

import json

import pytest

from rtp_core.cli.main import main

SMALL = (
    "--texts", "12", "--questions", "6", "--max-length", "400", "--answer-tokens", "24",
    "--held-out-tokens", "16", "--held-out-prompts", "2", "--draft-vocab", "64",
    "--step-tokens", "1024", "--max-num-seqs", "8", "--dtype", "float32", "--device", "cpu",
)  # fmt: skip


def train(model, out, *more, method="eagle_test,medusa_test", steps="3"):
    flags = ("--method", method, "--out", str(out), "--steps", steps)
    return main(["train-draft", str(model), *flags, *SMALL, *more])


@pytest.fixture
def model(tiny_model):
    return tiny_model


def test_heads_are_published_with_origin_and_metrics(trainers, model, tmp_path, capsys):
    assert train(model, tmp_path / "out") == 0
    for method in ("eagle_test", "medusa_test"):
        folder = tmp_path / "out" / method
        config = json.loads((folder / "config.json").read_text())
        assert len(config["target_fingerprint"]) == 32
        assert config["rtp"]["steps"] == 3
        assert config["rtp"]["command"].startswith("rtp train-draft ")
        metrics = json.loads((folder / "metrics.json").read_text())
        assert set(metrics["held_out"]) <= {"greedy", "T=0.8", "T=0.8, shared noise"}
    assert "K=1" in capsys.readouterr().out
