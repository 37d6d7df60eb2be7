"""What a plugin keeps as a plugin, whatever it offers. Each check takes its manifest."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import subprocess
import sys
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any

from rtp_core.api import API_VERSION, Offer
from rtp_core.errors import PluginError
from rtp_core.plugins.hooks import HOOKS, OPTIONS_HOOK, ROLES_OF
from rtp_core.plugins.inspection import check_implementations
from rtp_core.plugins.manifest import Manifest
from rtp_core.testing.conformance.verdict import NotApplicableError, require, show

ContractCheck = Callable[[Manifest], None]
HEAVY = ("torch", "triton", "transformers", "tensorflow", "jax", "fastapi", "uvicorn")
"""What the import of a plugin may not load: listings import every selected plugin."""

_PROBE = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2])
print(json.dumps(sorted(set(json.loads(sys.argv[3])) & set(sys.modules))))
"""


def the_manifest_is_sound(manifest: Manifest) -> None:
    """``plugin.toml`` can be read and says what a manifest must say."""
    require(
        manifest.broken is None,
        f"the manifest of {manifest.name} is sound",
        str(manifest.broken),
        "mend plugin.toml beside the package's __init__.py, and ship it in the wheel",
    )
    require(
        bool(manifest.provides),
        "provides names at least one offer, like scheduler:fair",
        "it is empty",
        "list what the hooks return",
    )


def the_api_version_fits(manifest: Manifest) -> None:
    """Same major as this rtp-core, and a minor that exists."""
    _require_sound(manifest)
    major, minor = API_VERSION
    found = manifest.api_version
    require(
        found[0] == major and found[1] <= minor,
        f"api is between {major}.0 and {major}.{minor}",
        manifest.api,
        "test against this API, then set api in plugin.toml",
    )


def importing_it_loads_nothing_heavy(manifest: Manifest) -> None:
    """In a fresh interpreter; factories import what they need."""
    arguments = [json.dumps(sys.path), manifest.module, json.dumps(HEAVY)]
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    require(
        done.returncode == 0,
        f"import {manifest.module} succeeds",
        "\n".join(done.stderr.strip().splitlines()[-1:]),
        "run the import by hand to see the whole traceback",
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    require(
        not loaded,
        f"import {manifest.module} loads none of {', '.join(HEAVY)}",
        f"it loads {', '.join(loaded)}",
        "import them inside the factory, and keep the package's __init__.py empty",
    )


def hooks_are_spelt_and_marked(manifest: Manifest) -> None:
    """Every ``rtp_*`` function is a hook that exists, marked, without arguments or order."""
    module = _module(manifest)
    try:
        check_implementations(manifest, module)
    except PluginError as error:
        require(
            False,
            "hook functions are plain implementations of existing hooks",
            error.message,
            error.remedy or "see rtp_core.api.hookspecs",
        )
    hooks = [name for name in HOOKS if hasattr(module, name)]
    require(
        bool(hooks),
        f"{manifest.module} implements a hook",
        "it implements none",
        f"define one of {', '.join(ROLES_OF)} there, with @hookimpl",
    )


def offers_equal_the_manifest(manifest: Manifest) -> None:
    """What the hooks return is what ``provides`` promises, so that the choice can trust it."""
    _require_sound(manifest)
    keys = sorted(offer.key for offer in _offers(manifest))
    require(
        keys == sorted(manifest.provides),
        f"the hooks offer {', '.join(sorted(manifest.provides))}, as plugin.toml says",
        f"they offer {', '.join(keys) or 'nothing'}",
        "make provides and the hooks agree",
    )


def factories_take_context_and_options(manifest: Manifest) -> None:
    """`Offer.build(context, options)`."""
    for offer in _offers(manifest):
        try:
            inspect.signature(offer.build).bind(None, None)
        except (TypeError, ValueError) as error:
            require(
                False,
                f"the factory of {offer.key} can be called as build(context, options)",
                str(error),
                "take two positional arguments; `del options` if there are none",
            )


def options_are_a_frozen_dataclass(manifest: Manifest) -> None:
    """Typed, frozen, and with types that can be resolved at run time."""
    hook = getattr(_module(manifest), OPTIONS_HOOK, None)
    kind = None if hook is None else hook()
    if kind is None:
        raise NotApplicableError("it takes no options")
    params = getattr(kind, "__dataclass_params__", None)
    require(
        isinstance(kind, type) and params is not None and params.frozen,
        f"{OPTIONS_HOOK} returns a frozen dataclass type",
        repr(kind),
        "decorate it with @dataclass(frozen=True, slots=True) and return the class itself",
    )
    try:
        hints = typing.get_type_hints(kind)
    except NameError as error:
        hints = {}
        require(
            False,
            f"the annotations of {kind.__name__} can be resolved",
            str(error),
            "import them at module level, outside TYPE_CHECKING",
        )
    untyped = [one.name for one in dataclasses.fields(kind) if hints.get(one.name) is Any]
    require(not untyped, "every option has a type", f"Any: {show(untyped)}", "name the type")


CONTRACT: tuple[ContractCheck, ...] = (
    the_manifest_is_sound,
    the_api_version_fits,
    importing_it_loads_nothing_heavy,
    hooks_are_spelt_and_marked,
    offers_equal_the_manifest,
    factories_take_context_and_options,
    options_are_a_frozen_dataclass,
)


def _require_sound(manifest: Manifest) -> None:
    if manifest.broken is not None:
        raise NotApplicableError("the manifest cannot be read")


def _module(manifest: Manifest) -> ModuleType:
    try:
        return importlib.import_module(manifest.module)
    except Exception as error:
        raise NotApplicableError(f"{manifest.module} cannot be imported: {error}") from error


def _offers(manifest: Manifest) -> list[Offer]:
    module = _module(manifest)
    offers: list[Offer] = []
    for hook in ROLES_OF:
        implementation = getattr(module, hook, None)
        if implementation is None:
            continue
        result = implementation()
        require(
            isinstance(result, tuple) and all(isinstance(one, Offer) for one in result),
            f"{hook} returns a tuple of Offer",
            repr(result),
            "return (Offer(Role.…, name, factory),)",
        )
        offers.extend(result)
    return offers
