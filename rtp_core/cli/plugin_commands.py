"""Commands that plugins add: `command:<name>` offers."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence

from rtp_core.api import BuildContext, EngineLimits, Role
from rtp_core.engine.services import MeasuredCosts, MonotonicClock
from rtp_core.plugins.discover import discover
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.resolve import Want, resolve


def command(name: str, argv: Sequence[str], builtin: tuple[str, ...]) -> int:
    """Run the plugin command `name`; usage error 2 when nobody offers it."""
    key = f"{Role.COMMAND.value}:{name}"
    manifests = discover()
    offered = sorted(
        offer.partition(":")[2]
        for manifest in manifests
        for offer in manifest.provides
        if offer.startswith(f"{Role.COMMAND.value}:")
    )
    if name not in offered:
        near = difflib.get_close_matches(name, (*builtin, *offered), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        argparse.ArgumentParser(prog="rtp").error(f"unknown command {name!r}{hint}")
    host = PluginHost(manifests, {})
    host.load(resolve((Want(key, "command line", "called"),), manifests, frozenset()))
    context = BuildContext(
        "cpu", "bfloat16", EngineLimits(0, 0, 0, 0, 0), MonotonicClock(), MeasuredCosts()
    )
    return host.build(Role.COMMAND, name, context)(list(argv))
