"""How a check says no: what was expected, what the part did, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtp_core.api import BuildContext

Make = Callable[[BuildContext], Any]
"""Builds a fresh part, as an offer does; two calls share no state."""

Check = Callable[[Make], None]
"""Returns if the part conforms; raises NotConformingError, or NotApplicableError to skip."""


class NotConformingError(AssertionError):
    """The part broke its contract. The message has three lines and needs no traceback."""

    def __init__(self, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"expected: {expected}\nfound:    {found}\nremedy:   {remedy}")
        self.expected = expected
        self.found = found
        self.remedy = remedy


class NotApplicableError(Exception):
    """This check has nothing to say about this part; the message tells why."""


def require(holds: bool, expected: str, found: str, remedy: str) -> None:
    """Raise NotConformingError unless `holds`."""
    if not holds:
        raise NotConformingError(expected, found, remedy)


def raises(
    action: Callable[[], Any], kinds: tuple[type[Exception], ...], expected: str, remedy: str
) -> Exception:
    """The error that `action` raised; NotConformingError if it raised none or another kind."""
    try:
        action()
    except kinds as error:
        return error
    except Exception as error:
        raise NotConformingError(expected, f"it raised {error!r}", remedy) from error
    raise NotConformingError(expected, "nothing was raised", remedy)


def quiet(action: Callable[[], Any], expected: str, remedy: str) -> Any:
    """What `action` returns; NotConformingError if it raises."""
    try:
        return action()
    except Exception as error:
        raise NotConformingError(expected, f"it raised {error!r}", remedy) from error


def show(values: Any, most: int = 8) -> str:
    """A sequence in few words."""
    listed = list(values)
    more = f" … {len(listed)} in all" if len(listed) > most else ""
    return f"{listed[:most]}{more}"
