"""The thread count follows what the process may use."""

from __future__ import annotations

import os

import pytest
import torch

from rtp_core import LLM
from rtp_core.engine import assemble
from rtp_core.engine.cores import usable_cores

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("max 100000\n", CORES),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        (f"{CORES * 100000 + 50000} 100000\n", CORES),
        ("nonsense", CORES),
        ("1 0", CORES),
        (None, CORES),
    ],
)
def test_affinity_capped_by_the_quota(tmp_path, content, wanted):
    path = tmp_path / "cpu.max"
    if content is not None:
        path.write_text(content)
    assert usable_cores(path) == wanted


def test_an_engine_never_raises_the_thread_count(tiny_model, monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(assemble, "usable_cores", lambda: 1)
        LLM(model=str(tiny_model)).close()
        assert torch.get_num_threads() == 1
        monkeypatch.setattr(assemble, "usable_cores", lambda: 64)
        LLM(model=str(tiny_model)).close()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
