"""Models that are cached already, with no word from the hub."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rtp_core.errors import ModelError
from rtp_core.loading.hub.cache import RepoCache, listing, missing_files
from rtp_core.loading.hub.files import matching, select
from rtp_core.loading.hub.name import HubName
from rtp_core.loading.hub.refusals import refusal
from rtp_core.observe.log import line

log = logging.getLogger("rtp.loading")


def pinned_model(name: HubName, cache: RepoCache) -> Path | None:
    """The cached model of a full commit, which cannot change; None unless it is whole."""
    if cache.commit(name.revision) != name.revision:
        return None
    return whole_model(name, cache)


def whole_model(name: HubName, cache: RepoCache) -> Path | None:
    """The cached model, if nothing of it is missing."""
    snapshot = cache.snapshot(name)
    if snapshot is None:
        return None
    try:
        selection = select(name, listing(snapshot))
    except ModelError:
        return None
    if selection.gguf is not None:
        # Without a choice only the hub's listing tells whether this is the model meant.
        return snapshot / selection.gguf.path if name.choice else None
    return None if missing_files(snapshot) else snapshot


def cached_model(
    name: HubName, cache: RepoCache, why: Exception, include: Sequence[str] = ()
) -> Path:
    """The cached snapshot. Raises ModelError if there is none, or not all of it."""
    snapshot = cache.snapshot(name)
    if snapshot is None:
        raise _not_cached(name, why) from why
    files = listing(snapshot)
    try:
        selection = matching(name, files, include) if include else select(name, files)
    except ModelError as error:
        raise _not_all_cached(name, error.message, why) from why
    missing = [] if include or selection.gguf else missing_files(snapshot)
    if missing:
        raise _not_all_cached(name, f"it lacks {', '.join(missing)}", why) from why
    reason = f"{type(why).__name__}: {why}".splitlines()[0]
    log.warning(line("hub_offline", id=str(name), commit=snapshot.name, reason=reason))
    return snapshot / selection.gguf.path if selection.gguf else snapshot


def _not_cached(name: HubName, why: Exception) -> ModelError:
    error = refusal(why, name)
    return ModelError(
        f"{error.message}; no copy is cached",
        remedy=f"{error.remedy}; unset HF_HUB_OFFLINE if it is set",
    )


def _not_all_cached(name: HubName, what: str, why: Exception) -> ModelError:
    return ModelError(
        f"the cached copy of hub model {name} does not do ({what}), and the hub cannot be "
        f"reached: {why}",
        remedy=f"connect to the network and run rtp model get {name}",
    )
