"""Which files of a repository are a model: never pickles, never a second copy of the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath

from rtp_core.errors import ModelError
from rtp_core.loading.hub.name import HubName

INDEX = "model.safetensors.index.json"
_DESCRIPTIONS = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_COPIES = ("consolidated*", "original/*")
_PART_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_PROJECTOR = "mmproj"
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository; `sha256` is known for those that the hub stores as large."""

    path: str
    num_bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """`descriptions` are small; `gguf` is the one file served, if the model is one."""

    descriptions: tuple[HubFile, ...]
    weights: tuple[HubFile, ...]
    gguf: HubFile | None = None

    @property
    def files(self) -> tuple[HubFile, ...]:
        """All of them."""
        return (*self.descriptions, *self.weights)


def select(name: HubName, files: Iterable[HubFile]) -> Selection:
    """A model out of a listing. An index among the descriptions says which shards count.

    Raises ModelError when there is none, or several GGUF files and no choice.
    """
    allowed = [file for file in files if safe(file.path)]
    descriptions = tuple(file for file in allowed if _describes(file.path))
    weights = () if name.choice else _safetensors(allowed)
    if weights:
        return Selection(descriptions, weights)
    gguf = _gguf(name, allowed)
    return Selection(descriptions, (gguf,), gguf)


def matching(name: HubName, files: Iterable[HubFile], patterns: Sequence[str]) -> Selection:
    """Files whose path matches one of the globs, but no pickle. Raises ModelError for none."""
    chosen = tuple(
        file
        for file in files
        if safe(file.path) and any(fnmatch(file.path, pattern) for pattern in patterns)
    )
    if not chosen:
        raise ModelError(
            f"no file of hub model {name} matches {' or '.join(map(repr, patterns))}",
            remedy="pickled weights are never fetched; check the patterns",
        )
    ggufs = [file for file in chosen if _is_gguf(file.path)]
    return Selection((), chosen, ggufs[0] if len(ggufs) == 1 else None)


def safe(path: str) -> bool:
    """Stays inside the repository, and is neither code in disguise nor a second copy."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        return False
    return not any(
        fnmatch(path, pattern) or fnmatch(parts.name, pattern) for pattern in (*_PICKLES, *_COPIES)
    )


def _describes(path: str) -> bool:
    if "/" in path or path.endswith(".index.json"):
        return path == INDEX
    return any(fnmatch(path, pattern) for pattern in _DESCRIPTIONS)


def _safetensors(files: Sequence[HubFile]) -> tuple[HubFile, ...]:
    """At the root: the whole model, else its shards, else whatever there is."""
    found = [file for file in files if fnmatch(file.path, "*.safetensors") and "/" not in file.path]
    named = {file.path for file in files}
    for pattern in ("model-*-of-*.safetensors",) if INDEX in named else ("model.safetensors",):
        chosen = tuple(file for file in found if fnmatch(file.path, pattern))
        if chosen:
            return chosen
    return tuple(found)


def _is_gguf(path: str) -> bool:
    return path.lower().endswith(".gguf") and _PROJECTOR not in PurePosixPath(path).name.lower()


def _gguf(name: HubName, files: Sequence[HubFile]) -> HubFile:
    ggufs = [file for file in files if _is_gguf(file.path)]
    if not ggufs:
        raise ModelError(
            f"hub model {name} has neither *.safetensors nor *.gguf files",
            remedy="pickled weights are not read: choose a model that has safetensors",
        )
    chosen = [file for file in ggufs if name.choice is None or _chosen(file.path, name.choice)]
    whole = [file for file in chosen if not _PART_OF_SEVERAL.search(file.path)]
    if chosen and not whole:
        raise ModelError(
            f"{chosen[0].path} of hub model {name.repo} is split into parts, which are not read",
            remedy="merge the parts into one .gguf file and pass that, or choose another file",
        )
    if len(whole) == 1:
        return whole[0]
    what = f"no GGUF file for {name.choice!r}" if not whole else f"{len(whole)} GGUF files"
    raise ModelError(
        f"hub model {name} has {what}: {_listed(whole or ggufs)}",
        remedy=f"choose one by its name or quantization, as {name.repo}:{_example(whole or ggufs)}",
    )


def _chosen(path: str, choice: str) -> bool:
    """By path, by file name, or by a whole word of the name such as Q4_K_M."""
    if choice in (path, PurePosixPath(path).name):
        return True
    word = rf"(?<![A-Za-z0-9_]){re.escape(choice)}(?![A-Za-z0-9_])"
    return re.search(word, path, re.IGNORECASE) is not None


def _listed(files: Sequence[HubFile]) -> str:
    names = sorted(file.path for file in files)
    rest = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + rest


def _example(files: Sequence[HubFile]) -> str:
    return min(file.path for file in files)
