"""Work that was begun is gone on with only where it is the same work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtp_core.errors import ConfigError
from rtp_core.loading.json_object import read_object
from rtp_core.training.tensor_file import save_text

FILE = "identity.json"


def begin_or_continue(folder: Path, flag: str, record: Mapping[str, Any]) -> None:
    """Note `record` in a new folder; in one with work, compare. `flag` named the folder.

    Raises ConfigError naming the first value that differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    record = json.loads(json.dumps(record))
    if not file.is_file():
        if any(folder.iterdir()):
            raise ConfigError(
                flag, f"{folder} holds something else", remedy="choose an empty directory"
            )
        save_text(file, json.dumps(record, indent=1) + "\n")
        return
    before = read_object(file)
    for key in sorted({*before, *record}):
        if before.get(key) != record.get(key):
            raise ConfigError(
                flag,
                f"{folder} was begun with {key} {before.get(key)!r}, now it is {record.get(key)!r}",
                remedy="go on with the same model and settings, or choose another directory",
            )
