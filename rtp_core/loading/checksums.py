"""Weights compared with the digests that lie beside them.

``SHA256SUMS`` has lines of coreutils' `sha256sum`: a digest, two blanks or a blank and a star, a
name. ``FILE.sha256`` has one such line, or a digest alone.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rtp_core.errors import WeightLoadError
from rtp_core.loading.objects.stand_in import is_stand_in

log = logging.getLogger("rtp.loading")
_LISTS = ("SHA256SUMS", "SHA256SUMS.txt", "sha256sums.txt", "sha256sum.txt")
_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?: [ *](.+))?")
_THREADS = 4
_MOST_BYTES = 2**20
"""Of a list of digests."""


def check_sums(files: Iterable[str]) -> int:
    """Files whose digest was known and is right. Raises WeightLoadError naming one that is not."""
    wanted = {}
    for file in files:
        path = Path(file)
        if not is_stand_in(file) and (found := _known(path)) is not None:
            wanted[path] = found
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(_sha256, wanted)
        for (path, (expected, source)), found in zip(wanted.items(), digests, strict=True):
            if found != expected:
                raise WeightLoadError(
                    f"its SHA-256 is {found[:16]}…, {source} says {expected[:16]}…",
                    file=str(path),
                    remedy="download the file again",
                )
    if not wanted:
        log.warning("checksums found=0 reason='no %s and no FILE.sha256'", _LISTS[0])
    return len(wanted)


def _known(path: Path) -> tuple[str, str] | None:
    """Digest and the name of the file that tells it."""
    own = path.with_name(f"{path.name}.sha256")
    if own.is_file():
        for digest, name in _lines(own):
            if name in ("", path.name):
                return digest, own.name
    for listed in (path.with_name(name) for name in _LISTS):
        if listed.is_file():
            for digest, name in _lines(listed):
                if name == path.name:
                    return digest, listed.name
    return None


def _lines(path: Path) -> list[tuple[str, str]]:
    """(digest, name) of each line; lines of another form are passed over."""
    with path.open(errors="replace") as file:
        text = file.read(_MOST_BYTES)
    found = [_LINE.fullmatch(line) for line in text.splitlines()]
    return [(one[1].lower(), (one[2] or "").removeprefix("./")) for one in found if one]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
