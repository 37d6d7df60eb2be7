"""JSON objects from files that nobody has checked yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rtp_core.errors import WeightLoadError

MAX_BYTES = 100_000_000


def read_object(path: Path, *, unique: bool = False) -> dict[str, Any]:
    """A whole file. Raises WeightLoadError as `parse_object` does, OSError from the system."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise WeightLoadError(f"{size} bytes of JSON, at most {MAX_BYTES}", file=str(path))
    return parse_object(path, path.read_bytes(), unique=unique)


def parse_object(path: Path, raw: bytes, *, unique: bool = False) -> dict[str, Any]:
    """UTF-8 JSON. `unique` refuses a key that stands twice, which JSON itself allows.

    Raises WeightLoadError naming the file.
    """

    def pairs_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise WeightLoadError(f"{key!r} stands twice", file=str(path))
            found[key] = value
        return found

    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs_once if unique else None)
    except (ValueError, RecursionError) as error:
        raise WeightLoadError(f"not JSON: {error}", file=str(path)) from error
    if not isinstance(content, dict):
        raise WeightLoadError("not a JSON object", file=str(path))
    return content
