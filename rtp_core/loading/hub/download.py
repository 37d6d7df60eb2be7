"""What is missing of one repository, in a few files at a time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rtp_core.errors import ModelError
from rtp_core.loading.hub.blob import BlobFetcher, library_file
from rtp_core.loading.hub.cache import RepoCache, shards
from rtp_core.loading.hub.files import INDEX, HubFile, Selection, select
from rtp_core.loading.hub.name import HubName
from rtp_core.loading.hub.patience import Patience
from rtp_core.loading.hub.transfer import Transfer

_FILES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit, and its listing."""

    name: HubName
    commit: str
    files: tuple[HubFile, ...]


class Download:
    """Brings one repository's model into the cache."""

    def __init__(self, repository: Repository, cache: RepoCache, patience: Patience) -> None:
        self._repository = repository
        self._cache = cache
        self._patience = patience
        self._snapshot = cache.folder / "snapshots" / repository.commit

    def run(self, chosen: Selection | None) -> Path:
        """Descriptions first: an index says which shards are weights."""
        name, files = self._repository.name, self._repository.files
        selection = chosen or select(name, files)
        self._fetch(self._missing(selection.descriptions))
        weights = selection.weights if chosen else self._counted(selection)
        self._fetch(self._missing(weights))
        self._cache.remember(name.revision, self._repository.commit)
        return self._snapshot / selection.gguf.path if selection.gguf else self._snapshot

    def _counted(self, selection: Selection) -> tuple[HubFile, ...]:
        """The shards that the index names, if there is one and it fits the listing."""
        named = shards(self._snapshot / INDEX) if (self._snapshot / INDEX).is_file() else set()
        if selection.gguf or not named:
            return selection.weights
        found = tuple(file for file in self._repository.files if file.path in named)
        lacking = sorted(named - {file.path for file in found})
        if lacking:
            raise ModelError(
                f"hub model {self._repository.name} lacks {', '.join(lacking)}, which its "
                f"{INDEX} names",
                remedy="the upload is not complete: choose another revision",
            )
        return found

    def _missing(self, files: Sequence[HubFile]) -> list[HubFile]:
        return [file for file in files if not (self._snapshot / file.path).is_file()]

    def _fetch(self, files: Sequence[HubFile]) -> None:
        if not files:
            return
        total = sum(file.num_bytes for file in files)
        self._check_room(files)
        with (
            Transfer(str(self._repository.name), total) as transfer,
            ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="rtp-hub") as pool,
        ):
            for _ in pool.map(partial(self._file, transfer), files):
                pass

    def _file(self, transfer: Transfer, file: HubFile) -> None:
        repository = self._repository
        if file.sha256 is not None:
            fetcher = BlobFetcher(
                repository.name, repository.commit, self._cache, self._patience, transfer.advance
            )
            fetcher.fetch(file, file.sha256)
        self._patience.call(
            file.path,
            lambda: library_file(
                repository.name.repo, file.path, repository.commit, self._patience.timeout_s
            ),
        )
        if file.sha256 is None:
            transfer.advance(file.num_bytes)

    def _check_room(self, files: Sequence[HubFile]) -> None:
        """Before the first byte, as a full disk is known only hours later otherwise."""
        folder = self._cache.folder
        folder.mkdir(parents=True, exist_ok=True)
        wanted = sum(file.num_bytes for file in files if not self._has_blob(file))
        free = shutil.disk_usage(folder).free
        if wanted > free:
            raise ModelError(
                f"hub model {self._repository.name} needs {wanted} bytes more in {folder}, "
                f"which has {free} free",
                remedy="free some space there, or set HF_HOME to another disk",
            )

    def _has_blob(self, file: HubFile) -> bool:
        return file.sha256 is not None and self._cache.blob(file.sha256).is_file()
