"""Hook implementations looked at before pluggy sees them: what would pass silently is refused."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from rtp_core.api.hookspecs import PROJECT
from rtp_core.config.rules import nearest
from rtp_core.errors import PluginError
from rtp_core.plugins.hooks import HOOKS
from rtp_core.plugins.manifest import Manifest

_MARK = f"{PROJECT}_impl"
_PREFIX = f"{PROJECT}_"


def check_implementations(manifest: Manifest, module: ModuleType) -> None:
    """Raise PluginError for a misspelt, unmarked, wrapping or defaulted implementation.

    pluggy 1.6 and 1.7 differ in these cases, or accept them without a word.
    """
    for name, function, marks in _candidates(module):
        problem = _problem(name, function, marks)
        if problem is not None:
            message, remedy = problem
            raise PluginError(manifest.name, manifest.version, message, remedy=remedy)


def _candidates(module: ModuleType) -> Iterator[tuple[str, FunctionType, dict[str, Any] | None]]:
    for name, value in vars(module).items():
        if isinstance(value, FunctionType):
            marks = getattr(value, _MARK, None)
            own = value.__module__ == module.__name__
            if marks is not None or (own and name.startswith(_PREFIX)):
                yield name, value, marks


def _problem(
    name: str, function: FunctionType, marks: dict[str, Any] | None
) -> tuple[str, str] | None:
    if marks is None:
        return f"{name} is not marked as a hook", "decorate it with @rtp_core.hookimpl"
    hook = marks.get("specname") or name
    if hook not in HOOKS and not marks.get("optionalhook"):
        return f"{hook} is no hook", nearest(hook, HOOKS)
    if marks.get("hookwrapper") or marks.get("wrapper"):
        return f"{name} wraps other implementations", "return offers: hooks are not wrapped"
    if marks.get("tryfirst") or marks.get("trylast"):
        return f"{name} asks for an order", "leave out tryfirst and trylast: order has no meaning"
    if parameters := inspect.signature(function).parameters:
        return f"{name} takes {', '.join(parameters)}", "hooks take no argument"
    return None
