"""A directory of weights that belongs to a plugin: found, headers read, nothing executed.

Only safetensors are read. A pickle can run code when it is opened: it is refused with the command
that converts it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtp_core.errors import ConfigError, ModelError

_PICKLES = (".bin", ".pt", ".pth")
_MOST_CONFIG_BYTES = 1 << 20
_AGAIN = "download the files again"
_CONVERT = (
    'python -c "import sys; from torch import load; from safetensors.torch import save_file; '
    "t = load(sys.argv[1], weights_only=True); "
    'save_file({k: v.contiguous().clone() for k, v in t.items()}, sys.argv[2])"'
)


@dataclass(frozen=True, slots=True)
class StoredTensors:
    """`config` is what config.json holds; `tensors`: (file, shape) by name, headers only."""

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[Path, tuple[int, ...]]]

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """None for a tensor that is not there."""
        found = self.tensors.get(tensor)
        return None if found is None else found[1]

    def read(self, tensor: str, framework: str = "pt") -> Any:
        """The whole tensor, a torch one or for ``numpy`` an array. Raises ModelError."""
        from safetensors import SafetensorError, safe_open

        file = self.tensors[tensor][0]
        try:
            with safe_open(file, framework=framework) as opened:
                return opened.get_tensor(tensor)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(
                f"{file}: tensor {tensor} cannot be read: {error}", remedy=_AGAIN
            ) from error


def open_stored_tensors(path: Path, field: str) -> StoredTensors:
    """Of a directory with config.json and safetensors files, or of one file beside config.json.

    Raises ConfigError naming `field`, the setting that gave the path, if there are none, and
    ModelError for damaged ones.
    """
    if not path.exists():
        raise ConfigError(field, f"{path} does not exist", remedy="give the directory")
    if path.suffix in _PICKLES:
        raise _pickled(path, field)
    folder = path if path.is_dir() else path.parent
    files = sorted(folder.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        for file in sorted(folder.iterdir()):
            if file.suffix in _PICKLES:
                raise _pickled(file, field)
        raise ConfigError(
            field, f"{folder} holds no safetensors file", remedy="give the directory that does"
        )
    tensors: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for file in files:
        tensors.update({name: (file, shape) for name, shape in _header(file).items()})
    return StoredTensors(str(path), _config(folder / "config.json", field), tensors)


def _pickled(file: Path, field: str) -> ConfigError:
    target = file.with_suffix(".safetensors")
    command = f"{_CONVERT} {shlex.quote(str(file))} {shlex.quote(str(target))}"
    return ConfigError(
        field,
        f"{file} is a pickle, which can run code when it is opened",
        remedy=f"convert it once, if you trust it: {command}",
    )


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is not a safetensors file: {error}", remedy=_AGAIN) from error


def _config(file: Path, field: str) -> Mapping[str, Any]:
    try:
        if file.stat().st_size > _MOST_CONFIG_BYTES:
            raise ModelError(f"{file} is larger than a configuration can be", remedy=_AGAIN)
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            field, f"{file} does not exist", remedy="weights are read with their config.json"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read: {error}", remedy=_AGAIN) from error
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds no JSON object", remedy=_AGAIN)
    return found
