"""Whether an object has the members its role's protocol names, with parameters that fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rtp_core.testing.conformance.verdict import Check, Make, require
from rtp_core.testing.contexts import build_context


def has_members(protocol: type) -> Check:
    """A check that what `make` builds has every member of `protocol`."""

    def has_the_members_of_its_protocol(make: Make) -> None:
        require_members(make(build_context()), protocol)

    return has_the_members_of_its_protocol


def require_members(part: Any, protocol: type) -> None:
    """Methods must be callable with the protocol's arguments; properties must be readable."""
    for name, member in vars(protocol).items():
        if name.startswith("_"):
            continue
        require(
            hasattr(part, name),
            f"{type(part).__name__} has {name!r}, as {protocol.__name__} demands",
            "it has not",
            f"implement {name}; see rtp_core.api.{protocol.__name__}",
        )
        if inspect.isfunction(member):
            _require_signature(part, name, member, protocol)


def _require_signature(part: Any, name: str, member: Callable[..., Any], protocol: type) -> None:
    method = getattr(part, name)
    wanted = list(inspect.signature(member).parameters.values())[1:]
    required = [one for one in wanted if one.default is inspect.Parameter.empty]
    shown = f"{name}({', '.join(one.name for one in wanted)})"
    try:
        signature = inspect.signature(method)
        for arguments in (wanted, required):
            signature.bind(*arguments)
    except (TypeError, ValueError) as error:
        require(
            False,
            f"{type(part).__name__}.{name} can be called as {shown}",
            f"it cannot: {error}",
            f"take the parameters of rtp_core.api.{protocol.__name__}.{name}, in that order",
        )
