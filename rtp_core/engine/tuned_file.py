"""Where `rtp tune` keeps what it found, and under which conditions that holds.

One file a card, driver, triton, torch and kernels' version: what is fastest depends on all of
them, and a file that says others than the process has is left aside with a warning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from rtp_core.config.environment import cache_dir

log = logging.getLogger("rtp.engine")
SCHEMA = 1
DRIVER = Path("/proc/driver/nvidia/version")
_VERSION = re.compile(r"\b\d{3}(?:\.\d+)+\b")
_PARTS = ("linear", "attention", "steps", "trials")
"""What a document holds beside its conditions: forms of operations, forms of attention, what was
gained by step, and timings of a search that has not ended."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a file holds under; all in words."""

    card: str
    driver: str
    triton: str
    torch: str
    kernels: str


def conditions_here() -> Conditions:
    """Those of this process's GPU. Imports triton."""
    import torch
    import triton

    from rtp_kernels import __version__

    card = torch.cuda.get_device_name()
    return Conditions(card, driver_version(), triton.__version__, torch.__version__, __version__)


def driver_version(file: Path = DRIVER) -> str:
    """Of NVIDIA's kernel module; ``unknown`` where the system does not tell."""
    try:
        found = _VERSION.search(file.read_text())
    except OSError:
        return "unknown"
    return "unknown" if found is None else found.group()


def tuned_file(conditions: Conditions, folder: Path | None = None) -> Path:
    """Under the cache directory, unless another `folder` is given."""
    words = json.dumps(asdict(conditions), sort_keys=True)
    name = hashlib.blake2b(words.encode(), digest_size=6).hexdigest()
    return (folder or cache_dir() / "tuning") / f"{_stem(conditions)}-{name}.json"


def empty(conditions: Conditions) -> dict[str, Any]:
    """A document without forms."""
    return {"schema": SCHEMA, **asdict(conditions), **{part: {} for part in _PARTS}}


def load(file: Path, conditions: Conditions) -> dict[str, Any] | None:
    """A document for these conditions. None if there is none, with a warning unless that is
    because nothing was ever tuned on this card."""
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        others = sorted(file.parent.glob(f"{_stem(conditions)}-*.json"))
        if others:
            _left_aside(others[-1], "it is for another driver, triton, torch or rtp-kernels")
        return None
    except (OSError, ValueError) as error:
        return _left_aside(file, f"it cannot be read: {error}")
    wanted = empty(conditions)
    if not isinstance(document, dict) or set(document) != set(wanted):
        return _left_aside(file, f"it does not hold {', '.join(wanted)}")
    for name in ("schema", *asdict(conditions)):
        if document[name] != wanted[name]:
            return _left_aside(file, f"its {name} is {document[name]!r}, not {wanted[name]!r}")
    if not all(isinstance(document[part], dict) for part in _PARTS):
        return _left_aside(file, f"{', '.join(_PARTS)} are not all objects")
    return document


def save(file: Path, document: dict[str, Any]) -> None:
    """All of it or nothing; raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f"{file.name}.{uuid4().hex[:8]}")
    scratch.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    scratch.replace(file)


def _stem(conditions: Conditions) -> str:
    card = re.sub(r"[^a-z0-9]+", "-", conditions.card.lower()).strip("-")
    return f"gpu-{card}"


def _left_aside(file: Path, why: str) -> None:
    log.warning("tuned_forms_left_aside file=%s reason=%r remedy='rtp tune'", file, why)
