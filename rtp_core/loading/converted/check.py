"""Whether a converted model's files are those that were written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.loading.converted.form import AGAIN, RECORD, read_conversion


def check_files(folder: Path) -> int:
    """Bytes whose digests agree with the record; WeightLoadError names a file whose do not."""
    conversion = read_conversion(folder)
    if conversion is None:
        raise ModelError(f"{folder} is no converted model", remedy=f"{RECORD} is missing")
    total = 0
    for name, expected in conversion.files.items():
        path = folder / Path(name).name
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
        if found != expected:
            raise WeightLoadError(
                f"its digest is {found[:16]}…, {RECORD} says {expected[:16]}…",
                file=str(path),
                remedy=AGAIN,
            )
        total += path.stat().st_size
    return total
