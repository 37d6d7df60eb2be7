"""Conformance suites: per role a tuple of checks, each an ordinary function.

A check takes a factory (``make(context)``, as an offer's `build`) and returns, or raises
NotConformingError that says what was expected, what was found and what to do.

    @pytest.mark.parametrize("check", suite(Role.SCHEDULER), ids=check_name)
    def test_my_policy_conforms(check):
        check(lambda context: MyPolicy())
"""

from __future__ import annotations

from importlib import import_module

from rtp_core.api import Role
from rtp_core.testing.conformance.verdict import (
    Check,
    Make,
    NotApplicableError,
    NotConformingError,
)

__all__ = [
    "Check",
    "Make",
    "NotApplicableError",
    "NotConformingError",
    "check_name",
    "suite",
]

_MODULES = {
    Role.LOADER: "loader",
    Role.SCHEDULER: "scheduling",
    Role.KV_STORE: "kv_store",
    Role.KV_TIER: "kv_tier",
    Role.SPECULATOR: "speculation",
    Role.ENCODER: "encoder",
    Role.TRANSPORT: "transport",
    Role.MODEL: "model",
    Role.ATTENTION: "attention",
    Role.TOOL_PARSER: "answers",
    Role.REASONING_PARSER: "answers",
}
_NAMES = {Role.TOOL_PARSER: "TOOL_CHECKS", Role.REASONING_PARSER: "REASONING_CHECKS"}


def suite(role: Role) -> tuple[Check, ...]:
    """Checks of a role; empty for roles without a suite. Imports torch only if they need it."""
    if role not in _MODULES:
        return ()
    module = import_module(f"rtp_core.testing.conformance.{_MODULES[role]}")
    return getattr(module, _NAMES.get(role, "CHECKS"))


def check_name(check: Check) -> str:
    """The statement that the check verifies, as an identifier."""
    return check.__name__
