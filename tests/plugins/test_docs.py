"""docs/hooks.md cannot fall behind the contract."""

from __future__ import annotations

from pathlib import Path

from rtp_core.api import Role
from rtp_core.plugins.hooks import HOOKS, ROLES_OF
from rtp_core.plugins.manifest import Fits
from rtp_core.plugins.shapes import _PROTOCOLS

TEXT = (Path(__file__).parent.parent.parent / "docs" / "hooks.md").read_text(encoding="utf-8")


def row_of(hook):
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{hook}`")]
    return row


def test_every_hook_has_a_row_and_a_section():
    for hook in HOOKS:
        assert row_of(hook)
        assert f"\n### {hook}\n" in TEXT


def test_every_role_stands_beside_its_hook():
    for hook, roles in ROLES_OF.items():
        for role in roles:
            assert f"`{role.value}:" in row_of(hook), (hook, role)
    assert {role for roles in ROLES_OF.values() for role in roles} == set(Role)


def test_every_protocol_stands_beside_its_hook():
    for hook, roles in ROLES_OF.items():
        for role in roles & set(_PROTOCOLS):
            assert f"`{_PROTOCOLS[role].__name__}`" in row_of(hook)


def test_every_key_of_the_manifest_is_described():
    for key in ("name", "api", "provides", "needs", "conflicts", "summary", "fits"):
        assert f"\n| `{key}` |" in TEXT
    for key in Fits.__dataclass_fields__:
        assert f"`{key}`" in TEXT
