"""Conformance checks as pytest items; imported only when `--rtp-plugin` is given."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rtp_core.config.rules import nearest
from rtp_core.errors import RtpError
from rtp_core.plugins.discover import discover
from rtp_core.testing.conformance.verdict import NotApplicableError, NotConformingError
from rtp_core.testing.installed import BoundCheck, InstalledPlugin

FULL_TRACEBACK = 2
"""Verbosity (``-vv``) from which failures come with their traceback."""


class ConformanceSession:
    """Adds the items of the named plugins to whatever else pytest collects."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = _plugins(config)
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = []  # no path was named: the plugins are what is tested

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
        """Conformance first; -k and -m apply to these items too."""
        collectors = [
            PluginCollector.from_parent(session, name=name, nodeid=f"rtp:{name}", plugin=plugin)
            for name, plugin in self._plugins.items()
        ]
        items[:0] = [item for one in collectors for item in session.genitems(one)]


class PluginCollector(pytest.Collector):
    """One plugin."""

    def __init__(self, *, plugin: InstalledPlugin, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._plugin = plugin

    def collect(self) -> Iterator[pytest.Item]:
        """An item a check; nothing of the plugin is imported."""
        for check in self._plugin.checks():
            name = f"{check.subject}::{check.name}"
            yield ConformanceItem.from_parent(self, name=name, check=check)


class ConformanceItem(pytest.Item):
    """One check of one offer, or of the plugin itself."""

    def __init__(self, *, check: BoundCheck, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._check = check

    def runtest(self) -> None:
        """Passes, fails, or is skipped where the check has nothing to say."""
        try:
            self._check.run()
        except NotApplicableError as reason:
            pytest.skip(str(reason))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Three lines; the traceback comes with -vv."""
        if self.config.get_verbosity() >= FULL_TRACEBACK:
            return super().repr_failure(excinfo, style)
        error = excinfo.value
        if isinstance(error, (NotConformingError, RtpError)):
            return str(error)
        last = excinfo.traceback[-1]
        return str(
            NotConformingError(
                "no exception",
                f"{type(error).__name__}: {error}\n"
                f"          raised in {last.name}, {last.path}:{last.lineno + 1}",
                "see the traceback with -vv",
            )
        )

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The headline of a failure."""
        return self.path, None, self.nodeid


def _plugins(config: pytest.Config) -> dict[str, InstalledPlugin]:
    manifests = discover()
    known = {manifest.name: manifest for manifest in manifests}
    options = _read_options(config.getoption("rtp_plugin_options"))
    chosen: dict[str, InstalledPlugin] = {}
    for name in config.getoption("rtp_plugin") or ():
        if name not in known:
            raise pytest.UsageError(
                f"--rtp-plugin {name}: no plugin of this name is installed "
                f"({nearest(name, known)}; `rtp plugins` lists them)"
            )
        chosen[name] = InstalledPlugin(
            known[name], manifests, options.get("plugins", {}), options.get("conformance", {})
        )
    return chosen


def _read_options(file: str | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        tables = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"--rtp-plugin-options {file}: {error}") from error
    for key in tables:
        if key not in ("plugins", "conformance"):
            raise pytest.UsageError(
                f"--rtp-plugin-options {file}: [{key}] is neither [plugins.NAME] nor [conformance]"
            )
    return tables
