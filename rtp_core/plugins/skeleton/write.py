"""Write a complete plugin distribution that passes conformance as it stands.

Templates lie beside this file as ``*.tmpl`` with ``$names``; one folder a role, and
``project`` for the files that every plugin has.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from rtp_core import __version__
from rtp_core.api import API_VERSION, Role
from rtp_core.errors import ConfigError

ROLES = (Role.SCHEDULER, Role.SPECULATOR, Role.KV_TIER, Role.LOADER)
"""Roles with a skeleton."""

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = frozenset({"core", "kernels"})
"""Names whose package would hide one of ours."""


def write_skeleton(name: str, role: Role, directory: Path) -> Path:
    """Create ``directory/rtp-<name>`` and answer its path.

    The plugin and its one offer are called `name`. Raises ConfigError when the name is not
    one a manifest may have, the role has no skeleton, or the folder exists.
    """
    _check(name, role)
    distribution = f"rtp-{name.replace('_', '-')}"
    root = directory / distribution
    if root.exists():
        raise ConfigError("NAME", f"{root} exists", remedy="choose another name or --directory")
    package = f"rtp_{name}"
    values = {
        "name": name,
        "role": role.value,
        "Role": role.name,
        "distribution": distribution,
        "package": package,
        "api": ".".join(map(str, API_VERSION)),
        "minor": ".".join(__version__.split(".")[:2]),
        "Class": "".join(part.capitalize() for part in name.split("_")),
    }
    for template, target in _files(role, root, package, name):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(template.read_text()).substitute(values))
    (root / package / "__init__.py").touch()
    return root


def _check(name: str, role: Role) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "NAME",
            f"{name!r} is no name for a plugin",
            remedy="use lower-case letters, digits and underscores, a letter first",
        )
    if name in _TAKEN:
        raise ConfigError("NAME", f"rtp_{name} is a package of rtp", remedy="choose another name")
    if role not in ROLES:
        known = ", ".join(one.value for one in ROLES)
        raise ConfigError("--role", f"no skeleton for {role.value}", remedy=f"use {known}")


def _files(role: Role, root: Path, package: str, name: str) -> list[tuple[Path, Path]]:
    """(template, file) of everything but the empty ``__init__.py``."""
    project, part = _TEMPLATES / "project", _TEMPLATES / role.value
    return [
        (project / "pyproject.toml.tmpl", root / "pyproject.toml"),
        (project / "README.md.tmpl", root / "README.md"),
        (project / "plugin.toml.tmpl", root / package / "plugin.toml"),
        (part / "plugin.py.tmpl", root / package / "plugin.py"),
        (part / "part.py.tmpl", root / package / f"{role.value}.py"),
        (project / "test.py.tmpl", root / "tests" / f"test_{name}.py"),
    ]
