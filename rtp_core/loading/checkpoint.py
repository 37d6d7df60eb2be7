"""A model on disk: configuration and tensor directory, whatever the format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rtp_core.api import TensorInfo
from rtp_core.errors import ModelError
from rtp_core.loading.content_id import content_id
from rtp_core.loading.converted.form import Conversion, converted_tensors, read_conversion
from rtp_core.loading.gguf import read_gguf
from rtp_core.loading.gguf_names import hugging_face_config, hugging_face_tensors
from rtp_core.loading.json_object import read_object
from rtp_core.loading.quantized.formats import read_quantization, without_quantization
from rtp_core.loading.quantized.tensor import Quantization
from rtp_core.loading.shards import PICKLES, directory_tensors, pickled


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`config` is config.json's content, synthesised for GGUF; `tensors` by HF name.

    Of a quantized checkpoint each weight is one tensor, whatever it is stored in, and what
    `quantization_config` said is in `quantization`, no longer in `config`.

    `content_id` hashes configuration (for GGUF all metadata, the tokenizer's too), tensor
    directory and samples spread over the weights: equal for copies of a model, different once
    one of them changes. What `rtp convert` wrote has a `conversion` and tensors by the names of
    the model's parameters.
    """

    kind: Literal["safetensors", "gguf"]
    root: Path
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    content_id: str
    gguf_metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    quantization: Quantization | None = None
    conversion: Conversion | None = None


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
    if exists and path.suffix in PICKLES:
        raise pickled(path)
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
    conversion = read_conversion(root)
    tensors = _tensors(root, conversion) if has_weights else {}
    defaults = _generation_config(root)
    content = content_id(json.dumps(config, sort_keys=True).encode(), tensors)
    quantization, weights = read_quantization(config, tensors)
    model = without_quantization(config)
    return Checkpoint(
        "safetensors", root, model, defaults, weights, content, None, quantization, conversion
    )


def _tensors(root: Path, conversion: Conversion | None) -> Mapping[str, TensorInfo]:
    if conversion is None:
        return directory_tensors(root)
    return converted_tensors(root, conversion)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path} is missing", remedy="it is part of every model directory")
    return read_object(path)
