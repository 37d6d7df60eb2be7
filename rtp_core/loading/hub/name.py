"""How a model of the hub is written: ``org/name``, ``org/name@revision``, ``org/name:choice``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rtp_core.errors import ConfigError

MAIN = "main"
_NAME = re.compile(
    r"(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[^\s@:]+))?(?::(?P<choice>[^\s:]+))?"
)
_PART = re.compile(r"(?![-.])(?!.*(?:--|\.\.))[A-Za-z0-9._-]+(?<![-.])")
"""The hub's rule for both halves of an id."""


@dataclass(frozen=True, slots=True)
class HubName:
    """`choice` is a GGUF file of the repository, or the name of its quantization."""

    repo: str
    revision: str = MAIN
    choice: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision == MAIN else f"@{self.revision}"
        return f"{self.repo}{revision}" + (f":{self.choice}" if self.choice else "")


def parse_name(text: str, revision: str | None = None) -> HubName | None:
    """The name, or None if `text` is not written like one.

    Raises ConfigError if `revision` and the text ask for different ones.
    """
    match = _NAME.fullmatch(text)
    if match is None or not all(map(_PART.fullmatch, match["repo"].split("/"))):
        return None
    inside = match["revision"]
    if revision is not None and inside is not None and revision != inside:
        raise ConfigError(
            "model.revision",
            f"{revision!r}, but {text!r} asks for {inside!r}",
            remedy="give one of the two",
        )
    wanted = revision or inside or MAIN
    if any(part in ("", ".", "..") for part in wanted.split("/")):
        raise ConfigError(
            "model.revision", f"{wanted!r} is no revision", remedy="use a branch, tag or commit"
        )
    return HubName(match["repo"], wanted, match["choice"])
