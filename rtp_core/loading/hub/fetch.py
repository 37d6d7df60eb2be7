"""From a hub name to files on disk: ask the hub, or use what is cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi

from rtp_core.errors import ModelError
from rtp_core.loading.hub.cache import RepoCache
from rtp_core.loading.hub.download import Download, Repository
from rtp_core.loading.hub.files import HubFile, matching
from rtp_core.loading.hub.name import HubName
from rtp_core.loading.hub.offline import cached_model, pinned_model
from rtp_core.loading.hub.patience import Patience
from rtp_core.loading.hub.refusals import HUB_ERRORS, refusal, unreachable, unstorable

PATIENCE = Patience()


def fetch_model(name: HubName, include: Sequence[str] = (), patience: Patience = PATIENCE) -> Path:
    """The snapshot's directory, or its .gguf file. Raises ModelError or WeightLoadError.

    Files that are cached are not fetched again, and a commit that is cached whole is not even
    asked for. If the hub cannot be reached, the cached snapshot is used and a log line says so.
    """
    cache = RepoCache.of(name.repo)
    pinned = None if include else pinned_model(name, cache)
    if pinned is not None:
        return pinned
    try:
        repository = ask(name, cache, patience)
        chosen = matching(name, repository.files, include) if include else None
        return Download(repository, cache, patience).run(chosen)
    except HUB_ERRORS as error:
        if not unreachable(error):
            raise refusal(error, name) from error
        return cached_model(name, cache, error, include)
    except OSError as error:
        raise unstorable(error, name, cache.folder) from error


def ask(name: HubName, cache: RepoCache, patience: Patience) -> Repository:
    """The hub's listing. Raises what the library raises."""
    # A host that is not there at all is not worth waiting for while a cached copy is.
    once = replace(patience, pauses_s=()) if cache.snapshot(name) else patience
    info = once.call(
        str(name),
        lambda: HfApi().model_info(
            name.repo, revision=name.revision, files_metadata=True, timeout=patience.timeout_s
        ),
    )
    files = tuple(
        HubFile(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None)
        for one in info.siblings or ()
    )
    if info.sha is None:
        raise ModelError(f"the hub gave no commit for {name}", remedy="check HF_ENDPOINT")
    return Repository(name, info.sha, files)
