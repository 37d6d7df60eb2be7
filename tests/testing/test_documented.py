"""docs/conformance.md lists every check, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtp_core.api import Role
from rtp_core.testing.conformance import check_name, suite
from rtp_core.testing.conformance.contract import CONTRACT

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
GENERAL = "has_the_members_of_its_protocol"


def sections():
    parts = PAGE.read_text().split("\n## ")[1:]
    return {part.splitlines()[0].strip("`"): part for part in parts}


@pytest.mark.parametrize("role", [role for role in Role if suite(role)])
def test_every_check_of_a_role_is_listed(role):
    listed = sections()[role.value]
    missing = [
        check_name(check)
        for check in suite(role)
        if check_name(check) != GENERAL and f"- {check_name(check).replace('_', ' ')}" not in listed
    ]
    assert missing == []


def test_every_contract_check_is_listed():
    listed = sections()["The plugin itself"]
    assert [c.__name__ for c in CONTRACT if f"- {c.__name__.replace('_', ' ')}" not in listed] == []
