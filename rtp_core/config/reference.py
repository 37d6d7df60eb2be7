"""docs/config.md, written from the schema: ``python -m rtp_core.config.reference``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rtp_core.config.render import value_text
from rtp_core.config.rules import Section, Setting, settings_of
from rtp_core.config.schema import SECTIONS

_HEAD = """# Configuration

Written by `python -m rtp_core.config.reference`; change `rtp_core/config/schema.py` instead.

A setting comes from, in order of precedence:

1. a flag, or a keyword argument of `LLM`;
2. an environment variable `RTP_SECTION__KEY`, like `RTP_KV__BLOCK_SIZE=32`;
3. the TOML file given with `--config` (the command line reads `./rtp.toml` without it);
4. the default below.

Any key is reached by `--set section.key=value`. In flags and variables a list is written with
commas, and `none` unsets a setting that may be unset. Where a list is expected, a single value
is taken for a list of one. `--print-config` prints the configuration that results.

A wrong key or value ends the start with the nearest name, what is allowed, and the flag, variable
or line of the file that gave it. `rtp explain` tells every setting that was given with its origin
(keys are hidden), `rtp doctor --config FILE` checks a file on the machine it is for, and
`rtp serve --help SECTION` (or `all`) tells on a terminal what stands here.

Names of parts (loader, policy, store, speculator, …) are names of offers: `rtp plugins` lists
those installed. Nothing is loaded unless a setting names it.
"""
_PLUGINS = """## [plugins.NAME]

Options of a plugin, below its name: `[plugins.spec_eagle]`, for a built-in part
`[plugins."core.speculation"]`. The plugin declares the keys; an unknown key is an error, and so
is a table for a plugin that is not installed. As variable: `RTP_PLUGINS__SPEC_EAGLE__KEY`, or
`RTP_PLUGINS__CORE__SPECULATION__KEY`; as flag: `--set plugins.spec_eagle.key=value`.
"""


def config_reference() -> str:
    """The whole document."""
    return "\n".join([_HEAD, *(_section(kind) for kind in SECTIONS.values()), _PLUGINS])


def _section(kind: type[Section]) -> str:
    title = (kind.__doc__ or "").partition(": ")[2]
    rows = [_row(setting) for setting in settings_of(kind).values()]
    head = ["| key | default | allowed | flag | meaning |", "|---|---|---|---|---|"]
    return "\n".join([f"## [{kind.section}]", "", title.capitalize(), "", *head, *rows]) + "\n"


def _row(setting: Setting) -> str:
    flag = f"`{setting.rule.flag}`" if setting.rule.flag else ""
    cells = (f"`{setting.key}`", _default(setting.default), "; ".join(_allowed(setting)), flag)
    return f"| {' | '.join(cells)} | {setting.rule.doc.replace('|', chr(92) + '|')} |"


def _default(default: Any) -> str:
    return "unset" if default is None else f"`{value_text(default)}`"


def _allowed(setting: Setting) -> Iterator[str]:
    if setting.rule.bounds:
        yield setting.rule.bounds
    elif isinstance(setting.default, bool):
        yield "true or false"
    elif isinstance(setting.default, tuple):
        yield "list of strings"
    else:
        yield "string"


if __name__ == "__main__":
    sys.stdout.write(config_reference())
