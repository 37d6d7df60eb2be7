"""What every KVTransport must keep, also towards a peer that is not there."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rtp_core.api import KVTransport
from rtp_core.errors import RtpError
from rtp_core.testing.conformance.shape import has_members
from rtp_core.testing.conformance.verdict import (
    Check,
    Make,
    NotApplicableError,
    NotConformingError,
    require,
    show,
)
from rtp_core.testing.contexts import build_context

DEADLINE_S = 20.0
PROMPT_S = 2.0
NOBODY = "127.0.0.1:9"
_KEYS = (b"\x01" * 16, b"\x02" * 16, b"\x03" * 16)
_BLOBS = (b"a" * 4096, b"b" * 4096, b"c" * 4096)


def an_absent_peer_takes_nothing(make: Make) -> None:
    """The future of a push resolves, to 0 or to an error of the tree, and soon."""
    transport: KVTransport = make(build_context())
    taken = _outcome(lambda: transport.push(NOBODY, _KEYS, _BLOBS), "push()")
    require(
        taken == 0 or isinstance(taken, (RtpError, OSError)),
        f"push() to {NOBODY}, where nobody listens, resolves to 0, RtpError or OSError",
        repr(taken),
        "bound connection time, and report what failed",
    )


def an_absent_peer_has_nothing(make: Make) -> None:
    """The future of a pull resolves, to None for each key or to an error of the tree."""
    transport: KVTransport = make(build_context())
    found = _outcome(lambda: transport.pull(NOBODY, _KEYS), "pull()")
    misses = not isinstance(found, Exception) and list(found) == [None] * len(_KEYS)
    require(
        misses or isinstance(found, (RtpError, OSError)),
        f"pull() from {NOBODY}, where nobody listens, resolves to {len(_KEYS)} times None, "
        "RtpError or OSError",
        repr(found),
        "bound connection time, and answer with misses",
    )


def nothing_to_move_is_no_error(make: Make) -> None:
    """Empty lists of keys."""
    transport: KVTransport = make(build_context())
    taken = _outcome(lambda: transport.push(NOBODY, (), ()), "push()")
    found = _outcome(lambda: transport.pull(NOBODY, ()), "pull()")
    require(
        taken == 0 and not isinstance(found, Exception) and len(found) == 0,
        "push() and pull() of no keys resolve to 0 and to an empty sequence",
        f"{taken!r} and {found!r}",
        "return before connecting when there is nothing to move",
    )


def blocks_arrive_unchanged(make: Make, peer: str | None = None) -> None:
    """Pushed to a living peer and pulled back; unknown keys are None, in order."""
    if peer is None:
        raise NotApplicableError("no peer was named; set peer in [conformance]")
    transport: KVTransport = make(build_context())
    taken = _outcome(lambda: transport.push(peer, _KEYS[:2], _BLOBS[:2]), "push()")
    require(
        taken == 2, f"push() of 2 blocks to {peer} resolves to 2", repr(taken), "count per block"
    )
    found = _outcome(lambda: transport.pull(peer, (_KEYS[2], _KEYS[1], _KEYS[0])), "pull()")
    require(
        not isinstance(found, Exception) and list(found) == [None, _BLOBS[1], _BLOBS[0]],
        "pull() answers in the order of its keys, None for the one never pushed",
        show(found) if not isinstance(found, Exception) else repr(found),
        "answer key by key",
    )


CHECKS: tuple[Check, ...] = (
    has_members(KVTransport),
    an_absent_peer_takes_nothing,
    an_absent_peer_has_nothing,
    nothing_to_move_is_no_error,
    blocks_arrive_unchanged,
)


def _outcome(call: Callable[[], Future[Any]], what: str) -> Any:
    """The future's result or exception; the call itself must be prompt and must not raise."""
    began = time.monotonic()
    try:
        future = call()
    except Exception as error:
        raise NotConformingError(
            f"{what} returns a future", f"it raised {error!r}", "put the error into the future"
        ) from error
    seconds = time.monotonic() - began
    require(
        isinstance(future, Future) and seconds <= PROMPT_S,
        f"{what} returns a concurrent.futures.Future within {PROMPT_S:.0f} s",
        f"{type(future).__name__} after {seconds:.1f} s",
        "move the work to a thread: the engine's loop waits for this call",
    )
    try:
        return future.result(DEADLINE_S)
    except TimeoutError as error:
        if not future.done():
            raise NotConformingError(
                f"the future of {what} resolves within {DEADLINE_S:.0f} s",
                "it is still pending",
                "bound every wait",
            ) from error
        return error
    except Exception as error:  # noqa: BLE001 (the caller judges it)
        return error
