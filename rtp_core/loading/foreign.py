"""Files that are not what their name says, recognised by how they start."""

from __future__ import annotations

from pathlib import Path

from rtp_core.errors import WeightLoadError

START_BYTES = 128


def refuse_foreign(path: Path, start: bytes) -> None:
    """`start` is the file's first bytes. Raises WeightLoadError for stand-ins of a download."""
    if start.startswith(b"version https://git-lfs"):
        raise WeightLoadError(
            "this is a Git LFS pointer, not the file", file=str(path), remedy="run git lfs pull"
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightLoadError(
            "this is a web page, not the file", file=str(path), remedy="download it again"
        )
