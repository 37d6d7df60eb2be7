"""A model on disk: configuration and tensor directory, whatever the format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from rtp_core.api import TensorInfo
from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.loading.content_id import content_id
from rtp_core.loading.gguf import read_gguf
from rtp_core.loading.gguf_names import hugging_face_config, hugging_face_tensors
from rtp_core.loading.json_object import read_object
from rtp_core.loading.quantized.formats import read_quantization, without_quantization
from rtp_core.loading.quantized.tensor import Quantization
from rtp_core.loading.safetensors_header import read_header

_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_THREADS = 32
"""Headers read at a time, which slow storage answers slowly."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`config` is config.json's content, synthesised for GGUF; `tensors` by HF name.

    Of a quantized checkpoint each weight is one tensor, whatever it is stored in, and what
    `quantization_config` said is in `quantization`, no longer in `config`.

    `content_id` hashes configuration (for GGUF all metadata, the tokenizer's too), tensor
    directory and samples spread over the weights: equal for copies of a model, different once
    one of them changes.
    """

    kind: Literal["safetensors", "gguf"]
    root: Path
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    content_id: str
    gguf_metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    quantization: Quantization | None = None


def open_checkpoint(path: Path, *, weights: bool = True) -> Checkpoint:
    """Read headers only; without `weights` a directory needs none and `tensors` are empty.

    Raises ModelError or WeightLoadError with file and remedy.
    """
    try:
        if path.is_file() and path.suffix == ".gguf":
            return _open_gguf(path)
        if path.is_dir():
            return _open_directory(path, weights)
        exists = path.is_file()
    except OSError as error:
        raise ModelError(f"{error.filename or path} cannot be read: {error.strerror}") from error
    if exists:
        raise ModelError(
            f"{path} is neither a .gguf file nor a model directory",
            remedy="pass a directory with config.json and *.safetensors, or a .gguf file",
        )
    raise ModelError(f"{path} does not exist", remedy="check the path")


def _open_gguf(path: Path) -> Checkpoint:
    file = read_gguf(path)
    config = hugging_face_config(file)
    tensors = hugging_face_tensors(file)
    content = content_id(file.header_digest, tensors)
    defaults = _generation_config(path.parent)
    return Checkpoint("gguf", path, config, defaults, tensors, content, file.metadata)


def _generation_config(folder: Path) -> Mapping[str, Any]:
    """Sampling defaults and stop ids; a .gguf file may have them beside it."""
    path = folder / "generation_config.json"
    return read_object(path) if path.is_file() else {}


def _open_directory(root: Path, has_weights: bool) -> Checkpoint:
    config = _read_json(root / "config.json")
    tensors = _tensors(root) if has_weights else {}
    defaults = _generation_config(root)
    content = content_id(json.dumps(config, sort_keys=True).encode(), tensors)
    quantization, weights = read_quantization(config, tensors)
    model = without_quantization(config)
    return Checkpoint(
        "safetensors", root, model, defaults, weights, content, quantization=quantization
    )


def _tensors(root: Path) -> dict[str, TensorInfo]:
    index = root / _INDEX
    weight_map: dict[str, str] = {}
    if index.is_file():
        weight_map = _weight_map(root, index)
        files = sorted({root / name for name in weight_map.values()})
    else:
        files = sorted(
            file for file in root.glob("*.safetensors") if not file.name.startswith("consolidated")
        )
    if not files:
        raise _no_weights(root)
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = list(pool.map(read_header, files))
    tensors: dict[str, TensorInfo] = {}
    for header in headers:
        for name, tensor in header.items():
            if name in tensors:
                raise WeightLoadError(
                    f"also in {tensors[name].file}",
                    file=tensor.file,
                    tensor=name,
                    remedy="remove the files that belong to another copy of the weights",
                )
            tensors[name] = tensor
    for name, shard in weight_map.items():
        if name not in tensors or Path(tensors[name].file) != root / shard:
            raise WeightLoadError(f"not in {shard}, where the index puts it", tensor=name)
    return tensors


def _weight_map(root: Path, index: Path) -> dict[str, str]:
    """Tensor -> shard. The index is data from elsewhere: its paths must stay inside `root`."""
    weight_map = read_object(index, unique=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightLoadError("weight_map is missing or empty", file=str(index))
    for shard in weight_map.values():
        if not isinstance(shard, str) or not _inside(shard):
            raise WeightLoadError(f"shard {shard!r} lies outside the model", file=str(index))
    for shard in sorted(set(weight_map.values())):
        if not (root / shard).is_file():
            raise WeightLoadError(
                f"shard {shard} not found", file=str(index), remedy="download the missing shard"
            )
    return weight_map


def _inside(shard: str) -> bool:
    """By name only: model hubs' caches are made of links that lead elsewhere."""
    path = PurePosixPath(shard)
    return path.suffix == ".safetensors" and not path.is_absolute() and ".." not in path.parts


def _no_weights(root: Path) -> ModelError:
    if any(next(root.glob(pattern), None) for pattern in _PICKLES):
        return ModelError(
            f"{root} holds pickled weights only, which can run code when read",
            remedy="convert them to safetensors",
        )
    if gguf := next(root.glob("*.gguf"), None):
        return ModelError(f"{root} holds no *.safetensors", remedy=f"pass {gguf} itself")
    return ModelError(f"{root} holds no *.safetensors", remedy="check the directory")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path} is missing", remedy="it is part of every model directory")
    return read_object(path)
