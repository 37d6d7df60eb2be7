"""What a model directory holds beside its weights."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

from rtp_core.loading.checkpoint import Checkpoint
from rtp_core.loading.converted.form import RECORD

_TEXTS = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
_NOT_TEXTS = ("*.index.json", "config.json", "generation_config.json", RECORD)


def write_texts(checkpoint: Checkpoint, tokenizer: Path, folder: Path) -> None:
    """Configuration and sampling defaults; from `tokenizer` its files and the chat template."""
    for path in sorted(tokenizer.iterdir()):
        named = any(fnmatch(path.name, one) for one in _TEXTS)
        if path.is_file() and named and not any(fnmatch(path.name, one) for one in _NOT_TEXTS):
            shutil.copyfile(path, folder / path.name)
    (folder / "config.json").write_text(json.dumps(dict(checkpoint.config), indent=1))
    if checkpoint.generation_config:
        defaults = json.dumps(dict(checkpoint.generation_config), indent=1)
        (folder / "generation_config.json").write_text(defaults)
