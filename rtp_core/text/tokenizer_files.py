"""The files of a tokenizer directory, in the layout of Hugging Face models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtp_core.errors import ModelError

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_OTHER_SOURCES = ("tokenizer.model", "vocab.json", "spiece.model")


def read_tokenizer(directory: Path) -> str:
    """Text of tokenizer.json. Raises ModelError when it is missing or plainly not one."""
    path = directory / TOKENIZER
    if not path.is_file():
        raise _missing(directory)
    text = read_text(path)
    if text.startswith("version https://git-lfs"):
        raise ModelError(
            f"{path} is a Git LFS pointer, not the file itself", remedy="run `git lfs pull` there"
        )
    return text


def read_config(directory: Path) -> dict[str, Any]:
    """tokenizer_config.json, or an empty mapping where there is none."""
    return read_object(directory / CONFIG)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty when the file is absent. Raises ModelError when it is no object."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}", remedy="download it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object", remedy="download it again")
    return content


def read_text(path: Path) -> str:
    """UTF-8 text of a model file. Raises ModelError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 text", remedy="download it again") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def named_special_tokens(directory: Path) -> dict[str, str]:
    """``bos_token`` and its like by name; tokenizer_config.json wins over the older map."""
    found = dict(_named(read_object(directory / SPECIAL_TOKENS_MAP)))
    found.update(_named(read_config(directory)))
    return found


def _named(source: Mapping[str, Any]) -> dict[str, str]:
    """Values are strings, or objects with ``content``; models add names of their own."""
    extra = source.get("extra_special_tokens")
    values = {**(extra if isinstance(extra, dict) else {}), **{k: source.get(k) for k in _NAMES}}
    texts = {name: token_content(value) for name, value in values.items()}
    return {name: text for name, text in texts.items() if text}


def token_content(value: Any) -> str | None:
    """The text of a token that is written as a string or as an object with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _missing(directory: Path) -> ModelError:
    if not directory.is_dir():
        return ModelError(
            f"tokenizer directory {directory} does not exist",
            remedy="pass a directory with tokenizer.json as --tokenizer DIR",
        )
    other = next((name for name in _OTHER_SOURCES if (directory / name).is_file()), None)
    if other is not None:
        return ModelError(
            f"{directory} holds {other} but no {TOKENIZER}",
            remedy="save it once with transformers' AutoTokenizer, which writes tokenizer.json",
        )
    return ModelError(
        f"{directory / TOKENIZER} is missing",
        remedy="put tokenizer.json beside the weights, or pass its directory as --tokenizer DIR",
    )
