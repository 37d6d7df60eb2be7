"""``pytest --rtp-plugin NAME``: run the conformance checks of an installed plugin.

Loaded by every pytest run of an environment that has rtp-core, so it imports nothing until
the option is given.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two options in their own group."""
    group = parser.getgroup("rtp", "conformance of rtp plugins")
    group.addoption(
        "--rtp-plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="check this installed plugin (core.* for built-ins); may be repeated",
    )
    group.addoption(
        "--rtp-plugin-options",
        metavar="FILE",
        help="TOML file with [plugins.NAME] tables, and [conformance] model_config or peer",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Nothing without the option."""
    if not config.getoption("rtp_plugin"):
        return
    from rtp_core.testing.collection import ConformanceSession

    config.pluginmanager.register(ConformanceSession(config), "rtp-conformance-session")
