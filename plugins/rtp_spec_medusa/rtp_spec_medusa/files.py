"""Files of heads: found, their headers read, nothing executed.

Only safetensors are read. A pickle can run code when it is opened, so ``medusa_lm_head.pt`` is
refused with the command that converts it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rtp_core.errors import ConfigError, ModelError

FIELD = "plugins.spec_medusa.head"
_MOST_CONFIG_BYTES = 1 << 20
_AGAIN = "download the heads again"
_CONVERT = (
    'python -c "from torch import load; from safetensors.torch import save_file; '
    "t = load('{file}', weights_only=True); "
    "save_file({{k: v.contiguous().clone() for k, v in t.items()}}, '{target}')\""
)


@dataclass(frozen=True, slots=True)
class HeadFiles:
    """`config` of the heads; `tensors`: (file, shape) by name, headers only."""

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[Path, tuple[int, ...]]]

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """None for a tensor that is not there."""
        found = self.tensors.get(tensor)
        return None if found is None else found[1]

    def read(self, tensor: str, framework: str = "pt") -> Any:
        """The whole tensor, a torch one or for ``numpy`` an array. Raises ModelError."""
        file = self.tensors[tensor][0]
        try:
            with safe_open(file, framework=framework) as opened:
                return opened.get_tensor(tensor)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(
                f"{file}: tensor {tensor} cannot be read: {error}", remedy=_AGAIN
            ) from error


def open_head(path: Path) -> HeadFiles:
    """Raises ConfigError for a path without heads, ModelError for a damaged one."""
    if not path.exists():
        raise ConfigError(FIELD, f"{path} does not exist", remedy="give the directory of the heads")
    folder = path if path.is_dir() else path.parent
    files = sorted(folder.glob("*.safetensors")) if path.is_dir() else [path]
    pickles = [file for file in folder.glob("*") if file.suffix in (".bin", ".pt", ".pth")]
    if path.suffix in (".bin", ".pt", ".pth"):
        raise _pickled(path)
    if not files:
        if pickles:
            raise _pickled(pickles[0])
        raise ConfigError(
            FIELD, f"{folder} holds no safetensors file", remedy="give the directory of the heads"
        )
    tensors: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for file in files:
        tensors.update({name: (file, shape) for name, shape in _header(file).items()})
    return HeadFiles(str(path), _config(folder / "config.json"), tensors)


def _pickled(file: Path) -> ConfigError:
    command = _CONVERT.format(file=file, target=file.with_suffix(".safetensors"))
    return ConfigError(
        FIELD,
        f"{file} is a pickle, which can run code when it is opened",
        remedy=f"convert it once, if you trust it: {command}",
    )


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is not a safetensors file: {error}", remedy=_AGAIN) from error


def _config(file: Path) -> Mapping[str, Any]:
    try:
        if file.stat().st_size > _MOST_CONFIG_BYTES:
            raise ModelError(f"{file} is larger than a configuration can be", remedy=_AGAIN)
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            FIELD, f"{file} does not exist", remedy="heads are read with their config.json"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read: {error}", remedy=_AGAIN) from error
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds no JSON object", remedy=_AGAIN)
    return found
