"""Comparisons: ratios, and rivals that are not there."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from rtp_core.bench.offline import Run
from rtp_core.bench.rival import RivalRun, Skipped, against, open_rival, ratio


@pytest.fixture
def gguf(tmp_path):
    (tmp_path / "folder").mkdir()
    file = tmp_path / "model.gguf"
    file.touch()
    return file


def test_a_ratio_above_one_is_ours_being_faster():
    assert ratio([2.0, 4.0, 9.0], [1.0, 1.0, 3.0]) == {"min": 2.0, "median": 4.0}
    assert ratio([], [1.0]) == {"min": None, "median": None}


@pytest.mark.parametrize("name", ["transformers", "llama-cpp-python"])
def test_a_rival_that_is_not_installed_is_skipped_with_the_command(monkeypatch, gguf, name):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    rival = open_rival(name, str(gguf), "float32", 1, 1)
    assert isinstance(rival, Skipped)
    assert "pip install" in rival.reason
    assert against(rival, [], []) == {"skipped": rival.reason}


class Llama:
    """Counts what it is asked; the next token is always the number of tokens known."""

    def __init__(self, path, **options):
        self.options = options
        self.known = []
        self.ctx = object()

    def n_vocab(self):
        return 64

    def reset(self):
        self.known.clear()

    def eval(self, tokens):
        self.known += tokens


@pytest.fixture
def llama_cpp(monkeypatch):
    made = []

    def create(path, **options):
        made.append(Llama(path, **options))
        return made[-1]

    def logits(ctx, row):
        values = np.zeros(64, dtype=np.float32)
        values[len(made[-1].known)] = 1
        return np.ctypeslib.as_ctypes(values)

    module = SimpleNamespace(Llama=create, llama_get_logits_ith=logits, __version__="9.9")
    monkeypatch.setitem(sys.modules, "llama_cpp", module)
    return made


def test_llama_cpp_decodes_its_own_tokens_and_times_each_step(llama_cpp, gguf):
    rival = open_rival("llama-cpp-python", str(gguf), "float32", 3, 1)
    run = rival.run([(5, 6, 7)], 4)
    (model,) = llama_cpp
    assert model.options["n_threads"] == 3
    assert model.known == [5, 6, 7, 3, 4, 5]
    assert len(run.step_s) == 3
    assert run.total_s >= run.ttft_s + sum(run.step_s)


@pytest.mark.parametrize(("path", "batch"), [("folder", 1), ("model.gguf", 2)])
def test_llama_cpp_says_what_it_cannot_run(llama_cpp, gguf, tmp_path, path, batch):
    assert isinstance(
        open_rival("llama-cpp-python", str(tmp_path / path), "float32", 1, batch), Skipped
    )


def test_the_report_of_a_rival():
    rival = SimpleNamespace(version="1", dtype="float32")
    found = against(rival, [Run(1.0, [0.1], [1], [0.0], 2.0, 1)], [RivalRun(3.0, (0.2,), 8.0)])
    assert found["ttft_ratio"] == {"min": 3.0, "median": 3.0}
    assert found["decode_step_ratio"]["min"] == pytest.approx(2.0)
    assert found["total_ratio"]["median"] == 4.0
    assert found["dtype"] == "float32"
