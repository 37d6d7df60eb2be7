"""Packages that a distribution requires, by its metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(.*)")
_BOUND = re.compile(r">=\s*([0-9][0-9.]*)")


def run_time(distribution: str) -> tuple[str, ...]:
    """What it needs in any case: requirements of extras and of other systems are left out."""
    try:
        found = requires(distribution) or []
    except PackageNotFoundError:
        return ()
    return tuple(one for one in found if ";" not in one)


def missing(requirements: Sequence[str]) -> list[str]:
    """Those that are not installed, or older than their lower bound."""
    return [one for one in requirements if not _is_met(one)]


def versions(distributions: Sequence[str]) -> Iterator[str]:
    """``name version`` of those that are installed."""
    for name in distributions:
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def _is_met(requirement: str) -> bool:
    match = _REQUIREMENT.match(requirement)
    if match is None:
        return True
    name, bounds = match.groups()
    try:
        have = _numbers(version(name))
    except PackageNotFoundError:
        return False
    least = _BOUND.search(bounds)
    return least is None or have >= _numbers(least.group(1))


def _numbers(text: str) -> tuple[int, ...]:
    """Leading numbers of a version: ``2.13.0+cpu`` is (2, 13, 0)."""
    return tuple(int(one) for one in re.findall(r"\d+", re.split(r"[+a-z]", text)[0]))
