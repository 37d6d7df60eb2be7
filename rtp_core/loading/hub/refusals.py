"""What the hub said, as an error that names the model and the remedy."""

from __future__ import annotations

import errno
from pathlib import Path

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rtp_core.errors import ModelError
from rtp_core.loading.hub.name import HubName

HUB_ERRORS = (httpx2.HTTPError, httpx2.StreamError, OfflineModeIsEnabled, LocalEntryNotFoundError)
"""What a call of the library raises for the hub's or the network's sake."""
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOKEN = "set HF_TOKEN or run `hf auth login`"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, also one the library wrapped."""
    for one in (error, error.__cause__):
        if isinstance(one, HfHubHTTPError):
            return one.response.status_code
    return None


def passing(error: Exception) -> bool:
    """True for what another try may cure."""
    status = status_of(error)
    if status is not None:
        return status in _LATER
    return not isinstance(error, OfflineModeIsEnabled)


def unreachable(error: Exception) -> bool:
    """True when the hub could not be asked, so that a cached copy is the best there is."""
    return isinstance(error, OfflineModeIsEnabled) or passing(error)


def refusal(error: Exception, name: HubName) -> ModelError:
    """The ModelError for what a call of the library raised."""
    for kind, make in _BY_KIND:
        if isinstance(error, kind):
            return make(name, _said(error))
    status = status_of(error)
    if status == 429:
        remedy = f"wait some minutes, or {_TOKEN} for a higher limit"
        return ModelError(f"the hub limits requests for {name}: {_said(error)}", remedy=remedy)
    if status in (401, 403):
        remedy = f"the token may be expired or lack access: {_TOKEN}"
        return ModelError(f"the hub refuses hub model {name}: {_said(error)}", remedy=remedy)
    if status is not None:
        return ModelError(f"hub model {name}: {_said(error)}", remedy="try again later")
    return ModelError(
        f"hub model {name} cannot be fetched: no use of {constants.ENDPOINT} ({_said(error)})",
        remedy="check the network, or pass a local directory",
    )


def unstorable(error: OSError, name: HubName, folder: Path) -> ModelError:
    """The cache cannot be written; a full disk keeps what was fetched, for the next try."""
    if error.errno in _NO_ROOM:
        what = f"the disk of {folder} is full"
        remedy = "free space there and start again, it goes on where it stopped; or set HF_HOME"
    else:
        what = f"{error.filename or folder} cannot be written: {error.strerror or error}"
        remedy = "make it writable, or set HF_HOME to another directory"
    return ModelError(f"hub model {name} cannot be stored: {what}", remedy=remedy)


def _gated(name: HubName, said: str) -> ModelError:
    page = f"{constants.ENDPOINT}/{name.repo}"
    return ModelError(
        f"hub model {name} is gated: {said}", remedy=f"accept its terms at {page}, then {_TOKEN}"
    )


def _no_repository(name: HubName, said: str) -> ModelError:
    return ModelError(
        f"model {name.repo!r} is neither a local path nor a model that the hub shows: {said}",
        remedy=f"check the spelling; if it is private, {_TOKEN}",
    )


def _no_revision(name: HubName, said: str) -> ModelError:
    return ModelError(
        f"hub model {name.repo} has no revision {name.revision!r}: {said}",
        remedy="use a branch, a tag or a full commit of its page",
    )


def _no_file(name: HubName, said: str) -> ModelError:
    return ModelError(f"hub model {name} lacks a file it lists: {said}", remedy="try again later")


def _unanswered(name: HubName, said: str) -> ModelError:
    return ModelError(f"hub model {name}: {said}", remedy="check the network, then try again")


_BY_KIND = (
    (GatedRepoError, _gated),
    (RepositoryNotFoundError, _no_repository),
    (RevisionNotFoundError, _no_revision),
    (LocalEntryNotFoundError, _unanswered),
    (EntryNotFoundError, _no_file),
)


def _said(error: Exception) -> str:
    """The server's own words and status; else what the transport reports."""
    cause = error if isinstance(error, HfHubHTTPError) else error.__cause__
    if isinstance(cause, HfHubHTTPError):
        words = cause.server_message or cause.response.reason_phrase
        return f"HTTP {cause.response.status_code} {words}".strip()
    inner = cause if isinstance(cause, Exception) else error
    return f"{type(inner).__name__}: {inner}".splitlines()[0]
