"""Measured row bounds are kept for this machine, and only when they can be believed."""

from __future__ import annotations

import json

import torch

from rtp_core.engine.tuning import MeasuredBounds, machine_id
from rtp_kernels import pack
from rtp_kernels.linear_weight import LinearWeight, quantize


def test_bounds_come_back_at_the_next_start(tmp_path):
    bounds = MeasuredBounds(tmp_path / "new")
    assert dict(bounds) == {}
    bounds["torch-int4-64x32"] = 8
    bounds.save()
    assert dict(MeasuredBounds(tmp_path / "new")) == {"torch-int4-64x32": 8}


def test_nothing_new_writes_nothing(tmp_path):
    MeasuredBounds(tmp_path / "new").save()
    assert not (tmp_path / "new").exists()


def test_a_damaged_file_is_measured_again(tmp_path):
    bounds = MeasuredBounds(tmp_path)
    bounds["a"] = 4
    bounds.save()
    (file,) = tmp_path.iterdir()
    for text in ("", "[]", "{", '{"a": -1, "b": true, "c": "8", "d": 1e3, "e": 99999999}'):
        file.write_text(text)
        assert dict(MeasuredBounds(tmp_path)) == {}
    file.write_text(json.dumps({"a": 4, "b": None}))
    assert dict(MeasuredBounds(tmp_path)) == {"a": 4}


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    bounds = MeasuredBounds(tmp_path / "file" / "below")
    bounds["a"] = 1
    bounds.save()


def test_another_processor_has_other_bounds(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("model name\t: A\nflags\t\t: avx2\ncpu MHz\t\t: 1000.0\n")
    two.write_text("model name\t: A\nflags\t\t: avx2 avx512f\ncpu MHz\t\t: 1000.0\n")
    assert machine_id(one) != machine_id(two)
    two.write_text("model name\t: A\nflags\t\t: avx2\ncpu MHz\t\t: 3000.0\n")
    assert machine_id(one) == machine_id(two)


def weights():
    torch.manual_seed(0)
    codes = quantize(torch.randn(64, 64), 4)
    return {"layer.0.qkv": LinearWeight(codes.dense().bfloat16(), codes)}


def test_a_known_bound_is_used_and_not_measured(monkeypatch):
    bounds: dict[str, int] = {}
    monkeypatch.setattr(pack, "crossover", lambda calls, dense, counts: 16)
    monkeypatch.setattr(pack, "_QUIET", 0.0)
    pack.pack_for_few_rows(weights(), "bfloat16", bounds=bounds)
    assert list(bounds.values()) == [16]

    def never(calls, dense):
        raise AssertionError("measured again")

    monkeypatch.setattr(pack, "crossover", never)
    bounds[next(iter(bounds))] = 2
    (made,) = pack.pack_for_few_rows(weights(), "bfloat16", bounds=bounds).values()
    assert made.max_rows == 2


def test_a_measurement_on_a_busy_machine_is_used_but_not_kept(monkeypatch):
    bounds: dict[str, int] = {}
    monkeypatch.setattr(pack, "crossover", lambda calls, dense, counts: 16)
    monkeypatch.setattr(pack, "_QUIET", float("inf"))
    (made,) = pack.pack_for_few_rows(weights(), "bfloat16", bounds=bounds).values()
    assert made.max_rows == 16
    assert bounds == {}
