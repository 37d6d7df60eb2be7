"""`--help`: a line a flag, by sections; `--help SECTION` and `--help all` say everything.

A line has the default in brackets, then what else is allowed. Settings without a flag of their
own are named with the section they are in.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from rtp_core.config.environment import PREFIX, SEPARATOR
from rtp_core.config.flags import AS_IN_VLLM, CONFIGURATION, OPERANDS
from rtp_core.config.rules import Setting, close_to, nearest, settings_of
from rtp_core.config.schema import SECTIONS

ALL = "all"
TOPICS = (*SECTIONS, ALL)
WIDEST = 110
_COLUMN = 31
_FIRST_CLAUSE = re.compile(r"[;:](?=\s)|\.(?=\s|$)")
_UNSET_MEANS = re.compile(r"unset is ((?:[^.;]|\.(?=\w))+)")
_BRACKETS = "In brackets: the default, then what is allowed. "
_MORE = f"All there is to say: --help SECTION ({', '.join(SECTIONS)}) or --help {ALL}."
_AS_SERVE = "As for rtp serve: MODEL, --dtype, --max-num-seqs, --config, --set, ... (--help all)"


class EngineParser(argparse.ArgumentParser):
    """A parser with the engine's flags and those of one command.

    `own_first`: help tells the command's, and of the engine's only that they are there.
    """

    def __init__(self, prog: str, description: str, *, own_first: bool) -> None:
        super().__init__(prog=prog, description=description, add_help=False, allow_abbrev=False)
        self._own_first = own_first
        self.add_argument("-h", "--help", action=_Help)

    def format_usage(self) -> str:
        """One line: there are too many flags for more."""
        return f"usage: {self.usage or f'{self.prog} [MODEL] [flags]'}\n"

    def format_help(self) -> str:
        """What ``--help`` prints."""
        head = [self.format_usage(), *_wrapped(self.description or ""), ""]
        if self._own_first:
            parts = [*self._own(), _AS_SERVE, *_wrapped(_MORE)]
        else:
            engine = [*_brief_sections(), *self._special()]
            parts = [*engine, *self._own(), *_wrapped(_BRACKETS + _MORE)]
        return "\n".join([*head, *parts, ""])

    def format_topic(self, topic: str) -> str:
        """What ``--help SECTION`` and ``--help all`` print."""
        if topic != ALL:
            return "\n".join(_full_section(topic))
        sections = (line for name in SECTIONS for line in _full_section(name))
        parts = [*self._own(), *sections, *self._special(full=True)]
        return "\n".join([self.format_usage(), *parts])

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """As parse_args; a flag that is none is answered with the nearest one."""
        found, left = self.parse_known_args(argv)
        if left:
            self._refuse(left)
        return found

    def _refuse(self, left: Sequence[str]) -> NoReturn:
        flag = left[0].partition("=")[0]
        hint = close_to(flag, self._option_string_actions) if flag.startswith("-") else ""
        self.error(f"unrecognized arguments: {' '.join(left)}{f' ({hint})' if hint else ''}")

    def _own(self) -> Iterator[str]:
        for group in self._action_groups:
            actions = [one for one in group._group_actions if _is_own(one)]
            if actions and group.title not in (AS_IN_VLLM, CONFIGURATION):
                yield f"{group.title}:"
                yield from (line for action in actions for line in _full_line(action))
                yield ""

    def _special(self, *, full: bool = False) -> Iterator[str]:
        for group in self._action_groups:
            if group.title in (AS_IN_VLLM, CONFIGURATION):
                yield f"{group.title}:"
                for action in group._group_actions:
                    yield from _full_line(action) if full else (_brief_line(action),)
                yield ""


class _Help(argparse.Action):
    """``--help [SECTION]``."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs="?", help="this, or a section, or all of it")

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print and exit; what is no section is an error of usage."""
        topic = str(values).strip("[]")
        if values is None or not isinstance(parser, EngineParser):
            sys.stdout.write(parser.format_help())
        elif topic not in TOPICS:
            parser.error(f"--help: {values!r} is no section ({nearest(topic, TOPICS)})")
        else:
            sys.stdout.write(parser.format_topic(topic))
        parser.exit()


def first_clause(doc: str) -> str:
    """A meaning up to its first stop."""
    return _FIRST_CLAUSE.split(doc, maxsplit=1)[0]


def brief_values(setting: Setting, room: int = WIDEST) -> str:
    """``64 on a CPU, 512 on a GPU; >= 1``: the default, then what is allowed, cut to `room`."""
    default, rule = _shown(setting.default), setting.rule
    if means := _UNSET_MEANS.search(rule.doc):
        default = means.group(1)
    if rule.choices:
        names = [default, *(one for one in rule.choices if one != default)]
        while len(names) > 2 and len(" | ".join(names)) > room:
            names[-2:] = ["..."]
        return " | ".join(names)
    bounds = rule.bounds.replace("at least", ">=").replace("less than", "<")
    return f"{default}; {bounds}" if bounds not in ("", default) else default


def _brief_sections() -> Iterator[str]:
    path = settings_of(SECTIONS["model"])["path"]
    yield f"  {'MODEL':<{_COLUMN}} directory, .gguf file, id of a hub or address [{path.default}]"
    yield ""
    for section, kind in SECTIONS.items():
        settings = settings_of(kind).values()
        yield f"[{section}]"
        for setting in settings:
            if setting.rule.flag not in (None, "--model"):
                yield _setting_line(section, setting)
        others = [setting.key for setting in settings if setting.rule.flag is None]
        if others:
            names = textwrap.wrap(", ".join(others), WIDEST - _COLUMN - 3)
            head = f"--set {section}.KEY=VALUE"
            for name in names:
                yield f"  {head:<{_COLUMN}} {name}"
                head = ""
        yield ""


def _setting_line(section: str, setting: Setting) -> str:
    start = f"  {_spelled(section, setting):<{_COLUMN}} {first_clause(setting.rule.doc)}"
    return f"{start} [{brief_values(setting, WIDEST - len(start) - 3)}]"


def _brief_line(action: argparse.Action) -> str:
    return f"  {_called(action):<{_COLUMN}} {first_clause(str(action.help))}"


def _full_line(action: argparse.Action) -> Iterator[str]:
    """As many lines as it has words for."""
    words = textwrap.wrap(str(action.help or ""), _width() - _COLUMN - 3) or [""]
    head = _called(action)
    if len(head) > _COLUMN:
        yield f"  {head}"
        head = ""
    for word in words:
        yield f"  {head:<{_COLUMN}} {word}"
        head = ""


def _full_section(section: str) -> Iterator[str]:
    """Every setting with its variable, meaning, default and bounds."""
    kind = SECTIONS[section]
    yield from _wrapped(f"[{section}]  {(kind.__doc__ or '').partition(': ')[2]}")
    for setting in settings_of(kind).values():
        variable = f"{PREFIX}{section}{SEPARATOR}{setting.key}".upper()
        bounds = f"; allowed: {setting.rule.bounds}" if setting.rule.bounds else ""
        yield f"  {_spelled(section, setting)}"
        yield from _wrapped(setting.rule.doc, "      ")
        yield from _wrapped(f"Default: {_shown(setting.default)}{bounds}. {variable}", "      ")
    yield ""


def _is_own(action: argparse.Action) -> bool:
    return "." not in action.dest and action.dest not in ("help", "model")


def _called(action: argparse.Action) -> str:
    """``--flag OPERAND``, or the operand alone."""
    operand = str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return operand.upper()
    if action.choices is not None:
        operand = "|".join(map(str, action.choices))
    more = " ..." if action.nargs == "+" else ""
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {operand}{more}"


def _spelled(section: str, setting: Setting) -> str:
    """How a setting is given on the command line."""
    flag, operand = setting.rule.flag, OPERANDS.get(setting.annotation, "TEXT")
    if flag is None:
        return f"--set {section}.{setting.key}={_assigned(setting, operand)}"
    if isinstance(setting.default, bool):
        return f"--[no-]{flag.removeprefix('--')}"
    return f"{flag} {operand}"


def _assigned(setting: Setting, operand: str) -> str:
    return "true|false" if isinstance(setting.default, bool) else operand.replace(" ...", ",...")


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if default is None or default == ():
        return "unset" if default is None else "none"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _width() -> int:
    return min(WIDEST, shutil.get_terminal_size().columns)


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, _width(), initial_indent=indent, subsequent_indent=indent)
