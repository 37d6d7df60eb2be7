"""A model on disk: configuration and tensor directory, whatever the format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rtp_core.api import TensorInfo
from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.loading.gguf import read_gguf
from rtp_core.loading.gguf_names import hugging_face_config, hugging_face_tensors
from rtp_core.loading.safetensors_header import read_header

_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_SAMPLES = 64
_SAMPLE_BYTES = 256


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`config` is config.json's content, synthesised for GGUF; `tensors` by HF name.

    `content_id` hashes configuration, tensor directory and samples spread over the weights:
    equal for copies of a model, different once weights change.
    """

    kind: Literal["safetensors", "gguf"]
    root: Path
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    content_id: str
    gguf_metadata: Mapping[str, Any] | None = field(default=None, repr=False)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read headers only. Raises ModelError or WeightLoadError with file and remedy."""
    if path.is_file() and path.suffix == ".gguf":
        return _open_gguf(path)
    if path.is_dir():
        return _open_directory(path)
    if path.is_file():
        raise ModelError(
            f"{path} is neither a .gguf file nor a model directory",
            remedy="pass a directory with config.json and *.safetensors, or a .gguf file",
        )
    raise ModelError(f"{path} does not exist", remedy="check the path")


def _open_gguf(path: Path) -> Checkpoint:
    file = read_gguf(path)
    config = hugging_face_config(file)
    tensors = hugging_face_tensors(file, str(path))
    return Checkpoint(
        "gguf", path, config, {}, tensors, _content_id(config, tensors), file.metadata
    )


def _open_directory(root: Path) -> Checkpoint:
    config = _read_json(root / "config.json", required=True)
    tensors = _tensors(root)
    generation = _read_json(root / "generation_config.json", required=False)
    return Checkpoint(
        "safetensors", root, config, generation, tensors, _content_id(config, tensors)
    )


def _tensors(root: Path) -> dict[str, TensorInfo]:
    index = root / _INDEX
    weight_map: dict[str, str] | None = None
    if index.is_file():
        weight_map = _weight_map(root, index)
        files = sorted({root / name for name in weight_map.values()})
    else:
        files = sorted(
            file for file in root.glob("*.safetensors") if not file.name.startswith("consolidated")
        )
    if not files:
        raise _no_weights(root)
    with ThreadPoolExecutor(max_workers=8) as pool:
        headers = list(pool.map(read_header, files))
    tensors: dict[str, TensorInfo] = {}
    for header in headers:
        for name, tensor in header.items():
            if name in tensors:
                other = tensors[name].file
                raise WeightLoadError(f"also in {other}", file=tensor.file, tensor=name)
            tensors[name] = tensor
    for name, shard in (weight_map or {}).items():
        if name not in tensors or Path(tensors[name].file).name != Path(shard).name:
            raise WeightLoadError(f"not in {shard}, where the index puts it", tensor=name)
    return tensors


def _weight_map(root: Path, index: Path) -> dict[str, str]:
    weight_map = _read_json(index, required=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightLoadError("weight_map is missing or empty", file=str(index))
    for shard in set(weight_map.values()):
        inside = isinstance(shard, str) and (root / shard).resolve().is_relative_to(root.resolve())
        if not inside:
            raise WeightLoadError(f"shard {shard!r} lies outside the model", file=str(index))
        if not (root / shard).is_file():
            raise WeightLoadError(
                f"shard {shard} not found", file=str(index), remedy="download the missing shard"
            )
    return weight_map


def _no_weights(root: Path) -> ModelError:
    if any(next(root.glob(pattern), None) for pattern in _PICKLES):
        return ModelError(
            f"{root} holds pickled weights only, which can run code when read",
            remedy="convert them to safetensors",
        )
    return ModelError(f"{root} holds no *.safetensors", remedy="check the directory")


def _read_json(path: Path, *, required: bool) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise ModelError(f"{path} is missing", remedy="it is part of every model directory")
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object")
    return content


def _content_id(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    ordered = sorted(tensors.values(), key=lambda one: one.name)
    for tensor in ordered:
        digest.update(f"{tensor.name}|{tensor.shape}|{tensor.dtype}\n".encode())
    step = max(1, len(ordered) // _SAMPLES)
    for tensor in ordered[::step]:
        with Path(tensor.file).open("rb") as file:
            file.seek(tensor.offset + tensor.num_bytes // 2)
            digest.update(file.read(min(_SAMPLE_BYTES, tensor.num_bytes - tensor.num_bytes // 2)))
    return digest.hexdigest()
