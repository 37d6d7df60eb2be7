"""Command-line flags, generated from the settings tree and named as vLLM names them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rtp_core.config.environment import process_environment
from rtp_core.config.read import Given, build_config, from_environment, from_file
from rtp_core.config.rules import Setting, settings_of
from rtp_core.config.schema import SECTIONS, EngineConfig
from rtp_core.config.values import Text
from rtp_core.errors import ConfigError

WORKING_FILE = Path("rtp.toml")
"""Read by the command line when it exists and no --config is given."""

AS_IN_VLLM, CONFIGURATION = "as in vLLM", "configuration"
"""Groups of flags that are not each one setting."""
OPERANDS: dict[Any, str] = {
    int: "N",
    int | None: "N",
    float: "X",
    tuple[str, ...]: "TEXT ...",
}
"""What a flag takes, by the type of its setting; else text."""
_ONLY = {
    "--kv-cache-dtype": (
        ("auto",),
        "precision of cached keys and values [auto]; only auto, the model's",
        "the dense store keeps model.dtype; the adaptive store has other formats: "
        "pip install rtp-kvquant and --set kv.store=adaptive",
    ),
    "--tensor-parallel-size": (
        ("1",),
        "devices a model is split over [1]; only 1",
        "use 1: a model runs on one device",
    ),
}
_FORMATS = ("auto", "safetensors", "gguf", "dummy")
_GGUF_NAMES = ("demo", "smollm2-135m")
"""Names of models that are obtained as GGUF."""


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, the flags of all sections, and those that reach any key.

    Their help is that of `rtp_core.cli.help`.
    """
    parser.allow_abbrev = False
    path = settings_of(SECTIONS["model"])["path"]
    parser.add_argument("model", nargs="?", metavar="MODEL", help=path.rule.doc)
    for section, kind in SECTIONS.items():
        flagged = [setting for setting in settings_of(kind).values() if setting.rule.flag]
        if flagged:
            group = parser.add_argument_group(f"[{section}]")
            for setting in flagged:
                _add(group, section, setting)
    _add_special(parser.add_argument_group(AS_IN_VLLM))
    _add_sources(parser.add_argument_group(CONFIGURATION))


def config_from_args(namespace: argparse.Namespace) -> EngineConfig:
    """Flags over environment over ``--config`` (else ./rtp.toml) over defaults.

    Raises ConfigError. With ``--print-config`` it prints the result as TOML and exits.
    """
    file = namespace.config
    if file is None and WORKING_FILE.is_file():
        file = WORKING_FILE
    config = build_config(
        (
            *(() if file is None else from_file(file)),
            *from_environment(process_environment()),
            *_from_flags(namespace),
        )
    )
    _check_format(namespace, config.model.path)
    if namespace.print_config:
        from rtp_core.config.render import to_toml

        sys.stdout.write(to_toml(config))
        raise SystemExit(0)
    return config


def _add(group: argparse._ArgumentGroup, section: str, setting: Setting) -> None:
    options: dict[str, Any] = {"dest": f"{section}.{setting.key}", "help": setting.rule.doc}
    if isinstance(setting.default, bool):
        options |= {"action": argparse.BooleanOptionalAction, "default": None}
    elif isinstance(setting.default, tuple):
        options |= {"action": "extend", "nargs": "+"}
    group.add_argument(str(setting.rule.flag), **options)


def _add_special(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--gpu-memory-utilization",
        metavar="X",
        help="share of memory [unset; above 0, up to 1]; sets kv.memory",
    )
    for flag, (_, summary, _) in _ONLY.items():
        group.add_argument(flag, metavar="TEXT", help=summary)
    group.add_argument(
        "--load-format",
        metavar="TEXT",
        help=f"form of the checkpoint [{' | '.join(_FORMATS)}]; must agree with MODEL, which "
        "decides it; dummy needs config.json only and makes random weights, for measurements",
    )
    group.add_argument("--disable-ui", action="store_true", help="do not serve the page at /")
    group.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="refused: code from a model directory is never run",
    )


def _add_sources(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file; without it ./rtp.toml, if there"
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="any setting, plugins.NAME.KEY included; lists with commas; may be repeated",
    )
    group.add_argument(
        "--print-config",
        action="store_true",
        help="print the effective configuration as TOML and exit; keys and secrets are in it",
    )


def _from_flags(namespace: argparse.Namespace) -> Iterator[Given]:
    _refuse(namespace)
    if namespace.model is not None:
        yield Given(("model", "path"), namespace.model, "MODEL")
    for section, kind in SECTIONS.items():
        for key, setting in settings_of(kind).items():
            value = vars(namespace).get(f"{section}.{key}")
            if value is not None:
                yield Given((section, key), _untyped(value), str(setting.rule.flag))
    if namespace.gpu_memory_utilization is not None:
        share = _share(namespace.gpu_memory_utilization)
        yield Given(("kv", "memory"), share, "--gpu-memory-utilization")
    if namespace.load_format == "dummy":
        yield Given(("loading", "loader"), "dummy", "--load-format")
    if namespace.disable_ui:
        yield Given(("server", "ui"), False, "--disable-ui")
    for assignment in namespace.set:
        yield _assigned(assignment)


def _untyped(value: Any) -> Any:
    return Text(value) if isinstance(value, str) else value


def _assigned(assignment: str) -> Given:
    name, equals, value = assignment.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    if not equals or len(path) < 2 or not all(path):
        raise ConfigError(
            "--set", f"{assignment!r} sets nothing", remedy="write --set section.key=value"
        )
    return Given(path, Text(value.strip()), f"--set {name}")


def _share(given: str) -> float:
    try:
        share = float(given)
    except ValueError:
        share = 0.0
    if not 0.0 < share <= 1.0:
        raise ConfigError(
            "--gpu-memory-utilization",
            f"{given!r} is no share of memory",
            remedy="give a number above 0 and up to 1; for bytes use --set kv.memory=BYTES",
        )
    return share


def _refuse(namespace: argparse.Namespace) -> None:
    """What has no effect here must not look as if it had."""
    if namespace.trust_remote_code:
        raise ConfigError(
            "--trust-remote-code",
            "is refused: code from a model directory would run with your rights",
            remedy="use a supported architecture, or add it with a plugin that offers model:*",
        )
    for flag, (values, _, remedy) in _ONLY.items():
        value = getattr(namespace, flag.removeprefix("--").replace("-", "_"))
        if value is not None and value not in values:
            raise ConfigError(flag, f"{value!r} is not available", remedy=remedy)
    named = vars(namespace)["model.path"]
    if None not in (named, namespace.model) and named != namespace.model:
        raise ConfigError(
            "--model",
            f"names {named!r}, but the argument MODEL names {namespace.model!r}",
            remedy="name the model once",
        )


def _check_format(namespace: argparse.Namespace, path: str) -> None:
    given = namespace.load_format
    if given in (None, "auto", "dummy"):
        return
    if given not in _FORMATS:
        raise ConfigError(
            "--load-format", f"{given!r} is not read", remedy=f"use {' or '.join(_FORMATS)}"
        )
    found = "gguf" if path.endswith(".gguf") or path in _GGUF_NAMES else "safetensors"
    hub_choice = ":" in path and "/" in path  # org/name:Q4_K_M is a GGUF file
    if given != found and not (hub_choice and given == "gguf"):
        raise ConfigError(
            "--load-format",
            f"{given} does not agree with {path!r}, which is read as {found}",
            remedy="leave it out, or pass a directory for safetensors and a .gguf file for gguf",
        )
