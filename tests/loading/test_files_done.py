"""Each file is told once, when its last tensor is placed."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from model_files import table, tensors, write_model

from rtp_core.errors import WeightLoadError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.files_done import TellingFiles
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights


def ignore(_):
    pass


@pytest.mark.parametrize("loader", [MmapLoader, FileOrderLoader])
def test_every_file_once_with_its_bytes(tmp_path, caplog, loader):
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, tensors(), shards=3)))
    with caplog.at_level(logging.INFO, "rtp.loading"):
        load_weights(plan, TellingFiles(loader()), "cpu", ignore)
    lines = [one.message for one in caplog.records if one.message.startswith("file_loaded")]
    for number in (1, 2, 3):
        name = f"model-{number}-of-3.safetensors"
        size = sum(
            one.tensor.num_bytes for one in plan.placements if one.tensor.file.endswith(name)
        )
        assert len([one for one in lines if f"file={name} bytes={size} seconds=" in one]) == 1
    assert len(lines) == 3


def test_a_file_that_fails_is_not_told(tmp_path, caplog):
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, tensors())))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with caplog.at_level(logging.INFO, "rtp.loading"), pytest.raises(WeightLoadError):
        load_weights(plan, TellingFiles(FileOrderLoader()), "cpu", ignore)
    assert "file_loaded" not in caplog.text
