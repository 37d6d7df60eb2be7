"""A trained head in a directory of its own, in the layout that others publish."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rtp_core.api import HeadFiles
from rtp_core.loading.json_object import read_object
from rtp_core.training.tensor_file import read_tensors, save_tensors, save_text

ORIGIN = "rtp"
"""Key of config.json that says what a head was trained for, and how."""
FINGERPRINT = "target_fingerprint"
"""Key of config.json with the identity of the weights it was trained for."""
CONFIG, METRICS = "config.json", "metrics.json"


def write_head(
    folder: Path, files: HeadFiles, origin: Mapping[str, Any], max_shard_bytes: int | None = None
) -> None:
    """`origin` goes into config.json and, as text, into the header of every weights file.

    Above `max_shard_bytes` weights are split as Hugging Face splits them, with an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    metadata = {"format": "pt", ORIGIN: json.dumps(origin)}
    shards = _shards(files.tensors, max_shard_bytes)
    stem = files.weights_name.removesuffix(".safetensors")
    names = [
        files.weights_name
        if len(shards) == 1
        else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    for name, tensors in zip(names, shards, strict=True):
        save_tensors(folder / name, tensors, metadata)
    if len(shards) > 1:
        _write_index(folder / f"{files.weights_name}.index.json", names, shards)
    identity = {FINGERPRINT: origin["fingerprint"]}
    write_config(folder, {**files.config, **identity, ORIGIN: dict(origin)})


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """config.json, whole or not at all."""
    save_text(folder / CONFIG, json.dumps(config, indent=1) + "\n")


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """metrics.json, whole or not at all."""
    save_text(folder / METRICS, json.dumps(metrics, indent=1) + "\n")


def read_head(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and tensors of a head in one file or several."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(read_tensors(path))
    return read_object(folder / CONFIG), tensors


def _shards(tensors: Mapping[str, torch.Tensor], most: int | None) -> list[dict[str, torch.Tensor]]:
    """In the given order, as few as there can be; a tensor is never split."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, one in tensors.items():
        if most is not None and shards[-1] and size + one.nbytes > most:
            shards.append({})
            size = 0
        shards[-1][name] = one
        size += one.nbytes
    return shards


def _write_index(path: Path, names: list[str], shards: list[dict[str, torch.Tensor]]) -> None:
    weight_map = {name: file for file, part in zip(names, shards, strict=True) for name in part}
    total = sum(one.nbytes for part in shards for one in part.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    save_text(path, json.dumps(index, indent=1) + "\n")
