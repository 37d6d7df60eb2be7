"""From an object store's address to a directory: small files whole, weights as stand-ins."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from rtp_core.errors import ModelError
from rtp_core.loading.hub.files import safe
from rtp_core.loading.objects.headers import write_header
from rtp_core.loading.objects.http import HttpStore
from rtp_core.loading.objects.open_store import open_store
from rtp_core.loading.objects.stand_in import remember
from rtp_core.loading.objects.store import ObjectFile, ObjectInfo, ObjectStore
from rtp_core.observe.log import line

log = logging.getLogger("rtp.loading")
_SMALL = (".json", ".jinja", "tokenizer.model", ".txt")
_MOST_SMALL_BYTES = 256 * 2**20
_THREADS = 16


def object_model(address: str, cache: Path, options: Sequence[str] = ()) -> Path:
    """A directory (or .gguf file) that can be opened as a checkpoint, in this process only.

    Raises ConfigError, ModelError or WeightLoadError naming object, status and remedy.
    """
    parts = urlsplit(address)
    base, single = address, ""
    if parts.path.endswith(".gguf"):
        single = parts.path.rpartition("/")[2]
        base = parts._replace(path=parts.path.rpartition("/")[0]).geturl()
    store = open_store(base, options)
    folder = _standing(store, _listing(store, single), cache / "objects")
    return folder / single if single else folder


def _listing(store: ObjectStore, single: str) -> Mapping[str, ObjectInfo]:
    if single and isinstance(store, HttpStore):
        info = store.info(single)
        found = {} if info is None else {single: info}
    else:
        listed = {key: info for key, info in store.list().items() if safe(key)}
        weights = (single,) if single else tuple(key for key in listed if _holds_weights(key))
        found = {
            key: info for key, info in listed.items() if key in weights or key.endswith(_SMALL)
        }
    if single and single not in found:
        raise ModelError(f"{store.address}/{single}: HTTP 404", remedy="check the address")
    if not single and "config.json" not in found:
        raise ModelError(
            f"{store.address}/config.json: HTTP 404",
            remedy="the address must be that of a model's folder, or of a .gguf object",
        )
    return found


def _holds_weights(key: str) -> bool:
    return key.endswith(".safetensors")


def _standing(store: ObjectStore, found: Mapping[str, ObjectInfo], cache: Path) -> Path:
    """A folder keyed by address and ETags: a changed object makes another one."""
    text = "\n".join(f"{key} {info.num_bytes} {info.etag}" for key, info in sorted(found.items()))
    digest = hashlib.sha256(f"{store.address}\n{text}".encode()).hexdigest()[:32]
    folder = cache / digest
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=cache, prefix="part-"))
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda entry: _bring(store, scratch, entry), found.items()))
        try:
            scratch.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    for key, info in found.items():
        if not key.endswith(_SMALL):
            remember(folder / key, ObjectFile(store, key, info))
    log.info(line("objects_found", address=store.address, objects=len(found)))
    return folder


def _bring(store: ObjectStore, folder: Path, entry: tuple[str, ObjectInfo]) -> None:
    key, info = entry
    file, target = ObjectFile(store, key, info), folder / key
    if key.endswith(_SMALL):
        if info.num_bytes > _MOST_SMALL_BYTES:
            raise ModelError(f"{store.address}/{key} has {info.num_bytes} bytes, no description")
        target.write_bytes(file.read_range(0, info.num_bytes))
    else:
        write_header(file, target)
