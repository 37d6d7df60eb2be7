"""The safetensors files of a model directory, with or without an index, as one directory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from rtp_core.api import TensorInfo
from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.loading.json_object import read_object
from rtp_core.loading.safetensors_header import read_header

_INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_THREADS = 32
"""Headers read at a time, which slow storage answers slowly."""


def pickled(path: Path) -> ModelError:
    """Why pickles are not read, and what to do with them."""
    folder = path if path.is_dir() else path.parent
    command = (
        'python -c "from transformers import AutoModelForCausalLM as M; '
        f"M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\""
    )
    return ModelError(
        f"{path} holds pickled weights only, which can run code when read",
        remedy=f"where you trust their origin, convert them to safetensors: {command}",
    )


def directory_tensors(root: Path) -> dict[str, TensorInfo]:
    """Headers only. Raises ModelError or WeightLoadError."""
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
    if any(next(root.glob(f"*{suffix}"), None) for suffix in PICKLES):
        return pickled(root)
    if gguf := next(root.glob("*.gguf"), None):
        return ModelError(f"{root} holds no *.safetensors", remedy=f"pass {gguf} itself")
    return ModelError(f"{root} holds no *.safetensors", remedy="check the directory")
