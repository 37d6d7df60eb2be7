"""The sandbox chat templates run in, with the names Hugging Face models expect.

Every turn of a loop and every call of a macro passes a check, so that a template that does
not come to an end is stopped: the check is compiled into the template.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_CHECK = "__rtp_check__"
_REPEATED = (nodes.For, nodes.Macro, nodes.CallBlock)


class CompiledTemplate:
    """One template. `names` are the variables it reads that are neither set in it nor global.

    Raises jinja2.TemplateSyntaxError when the source is not a template.
    """

    def __init__(self, source: str) -> None:
        environment = _environment()
        tree = environment.parse(source)
        self.names = frozenset(meta.find_undeclared_variables(tree) - environment.globals.keys())
        for node in tree.find_all(_REPEATED):
            node.body.insert(0, _check_call(node.lineno, environment))
        code = environment.compile(tree)
        self._template = jinja2.Template.from_code(
            environment, code, environment.make_globals(None)
        )

    def render(self, variables: dict[str, Any], *, max_chars: int, max_seconds: float) -> str:
        """The text. Raises jinja2.TemplateError beyond the limits, and what the template raises."""
        check = _deadline(max_seconds)
        pieces: list[str] = []
        size = 0
        for piece in self._template.generate({**variables, _CHECK: check}):
            size += len(piece)
            if size > max_chars:
                raise jinja2.TemplateError(f"the chat template writes over {max_chars} characters")
            pieces.append(piece)
        return "".join(pieces)


def _deadline(max_seconds: float) -> Callable[[], None]:
    end = time.monotonic() + max_seconds

    def check() -> None:
        if time.monotonic() > end:
            raise jinja2.TemplateError(f"the chat template runs for over {max_seconds:g} s")

    return check


def _check_call(line: int, environment: jinja2.Environment) -> nodes.Node:
    call = nodes.Call(nodes.Name(_CHECK, "load"), [], [], None, None)
    return nodes.ExprStmt(call).set_lineno(line, override=True).set_environment(environment)


class _Generation(Extension):
    """`{% generation %}` marks what a model was trained to write; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - the name and type jinja2 reads

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON; jinja2's own filter escapes HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    """Local time, as templates that tell the model the date expect."""
    return datetime.now().strftime(form)
