"""Safetensors files with a header and no weights."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

from rtp_core.errors import ModelError
from rtp_core.loading.hub.name import HubName


def write_hollow(name: HubName, commit: str, path: str, target: Path) -> None:
    """`target` gets the header of the hub's file, and a hole of the size of its weights."""
    try:
        found = HfApi().parse_safetensors_file_metadata(name.repo, path, revision=commit)
    except (SafetensorsParsingError, NotASafetensorsRepoError) as error:
        raise ModelError(f"{path} of hub model {name} is no safetensors: {error}") from error
    header = {
        tensor: {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": list(info.data_offsets),
        }
        for tensor, info in found.tensors.items()
    }
    raw = json.dumps(header).encode()
    end = max((info["data_offsets"][1] for info in header.values()), default=0)
    with target.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
