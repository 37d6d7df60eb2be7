"""One large file: resumed where it stopped, and checked before it gets its name.

The hub library starts an interrupted file again from its first byte and does not compare
hashes; weights are too large for the one and too important for the other. The bytes are put
where the library looks for them, under the lock it takes, so that both can share the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_session, hf_hub_download, hf_hub_url
from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status
from huggingface_hub.utils.tqdm import silent_tqdm

from rtp_core.errors import WeightLoadError
from rtp_core.loading.hub.cache import RepoCache
from rtp_core.loading.hub.files import HubFile
from rtp_core.loading.hub.name import HubName
from rtp_core.loading.hub.patience import Patience

_PARTIAL, _RANGE_UNUSABLE = 206, 416


@dataclass(frozen=True, slots=True)
class BlobFetcher:
    """Fetches files of one commit of a repository; `advance` gets bytes as they arrive."""

    name: HubName
    commit: str
    cache: RepoCache
    patience: Patience
    advance: Callable[[int], None]

    def fetch(self, file: HubFile, sha256: str) -> Path:
        """The blob. Raises WeightLoadError when the bytes are not those the hub announced."""
        blob, lock = self.cache.blob(sha256), self.cache.lock(sha256)
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not blob.is_file():
                partial = blob.with_name(f"{sha256}.incomplete")
                self.advance(_size(partial))
                self.patience.call(
                    file.path, lambda: self._receive(file, partial), lambda: _size(partial)
                )
                _check(partial, file, sha256)
                partial.replace(blob)
        return blob

    def _receive(self, file: HubFile, partial: Path) -> None:
        """What is still missing; returns when the server says it was all."""
        have = _size(partial)
        if have >= file.num_bytes and have:
            return
        url = hf_hub_url(self.name.repo, file.path, revision=self.commit)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with get_session().stream(
            "GET", url, headers=headers, timeout=self.patience.timeout_s
        ) as answer:
            if answer.status_code == _RANGE_UNUSABLE:
                return
            hf_raise_for_status(answer)
            keeps = answer.status_code == _PARTIAL
            if not keeps:
                self.advance(-have)
            with partial.open("ab" if keeps else "wb") as target:
                # As they arrive: bytes gathered to larger pieces would be lost in a cut.
                for chunk in answer.iter_bytes():
                    target.write(chunk)
                    self.advance(len(chunk))


def library_file(repo: str, path: str, commit: str, timeout_s: float) -> Path:
    """A file of a snapshot, through the library: it fetches small files, and links a blob that
    is there already under the file's name. Raises what the library raises.
    """
    found = hf_hub_download(  # pyright: ignore[reportCallIssue]
        repo,
        path,
        revision=commit,
        etag_timeout=timeout_s,
        tqdm_class=silent_tqdm,  # pyright: ignore[reportArgumentType]
    )
    return Path(found)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check(partial: Path, file: HubFile, sha256: str) -> None:
    """Bad bytes are removed: the next try must not build on them."""
    with partial.open("rb") as source:
        found = hashlib.file_digest(source, "sha256").hexdigest()
    if found == sha256:
        return
    size = _size(partial)
    partial.unlink()
    raise WeightLoadError(
        f"the download has SHA-256 {found} in {size} bytes, "
        f"expected {sha256} in {file.num_bytes}; it was removed",
        file=file.path,
        remedy="try again; if it happens again, a proxy or mirror alters the file",
    )
