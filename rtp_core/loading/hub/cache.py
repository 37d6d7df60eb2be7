"""The hub library's cache on disk, in its documented layout, read without the network.

``models--ORG--NAME`` holds ``refs/REVISION`` (the commit it stood for), ``snapshots/COMMIT``
(links by file name) and ``blobs`` (the bytes; large ones are named by their SHA-256).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from rtp_core.loading.hub.files import INDEX, HubFile
from rtp_core.loading.hub.name import HubName

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class RepoCache:
    """The folder of one repository."""

    folder: Path

    @classmethod
    def of(cls, repo: str) -> RepoCache:
        """Where the library's settings (HF_HOME, HF_HUB_CACHE) put it."""
        from huggingface_hub import constants

        root = Path(constants.HF_HUB_CACHE).expanduser()
        return cls(root / f"models--{repo.replace('/', '--')}")

    def lock(self, sha256: str) -> Path:
        """The lock file that the library, too, takes before it writes this blob."""
        return self.folder.parent / ".locks" / self.folder.name / f"{sha256}.lock"

    def blob(self, sha256: str) -> Path:
        """Bytes of a large file."""
        return self.folder / "blobs" / sha256

    def commit(self, revision: str) -> str | None:
        """The commit that a revision stood for when it was last asked."""
        if _COMMIT.fullmatch(revision):
            return revision
        ref = self.folder / "refs" / revision
        return ref.read_text().strip() if ref.is_file() else None

    def remember(self, revision: str, commit: str) -> None:
        """Let `revision` stand for `commit` when the network is away."""
        ref = self.folder / "refs" / revision
        if revision == commit or self.commit(revision) == commit:
            return
        ref.parent.mkdir(parents=True, exist_ok=True)
        scratch = ref.with_name(f"{ref.name}.{uuid4().hex[:8]}")
        scratch.write_text(commit)
        scratch.replace(ref)

    def snapshot(self, name: HubName) -> Path | None:
        """The cached snapshot, complete or not."""
        commit = self.commit(name.revision)
        folder = self.folder / "snapshots" / (commit or "-")
        return folder if folder.is_dir() else None


def listing(snapshot: Path) -> list[HubFile]:
    """The files that are there; a link whose bytes are missing is not."""
    return [
        HubFile(path.relative_to(snapshot).as_posix(), path.stat().st_size)
        for path in sorted(snapshot.rglob("*"))
        if path.is_file()
    ]


def missing_files(snapshot: Path) -> list[str]:
    """What a snapshot with safetensors lacks, of what itself names."""
    wanted = {"config.json"}
    index = snapshot / INDEX
    if index.is_file():
        wanted |= shards(index)
    return sorted(name for name in wanted if not (snapshot / name).is_file())


def shards(index: Path) -> set[str]:
    """The files an index names; an index that cannot be read is for the loader to refuse."""
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        return {name for name in weight_map.values() if isinstance(name, str)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()
