"""The formats in which the served model writes calls and thoughts: configured, or found out."""

from __future__ import annotations

from dataclasses import dataclass

from rtp_core.api import BuildContext, EngineLimits, ReasoningFormat, Role, ToolFormat
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.services import MeasuredCosts, MonotonicClock
from rtp_core.plugins.discover import discover
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.resolve import Want, resolve
from rtp_core.text.chat_template import ChatTemplate
from rtp_core.text.formats import detect

AUTO, NONE = "auto", "none"
FALLBACK = "hermes"
"""In which calls are forced when the model's own format has no grammar, or is not known."""


@dataclass(frozen=True, slots=True)
class AnswerFormats:
    """None = the model is not known to write such a thing. `forced` is for calls without choice."""

    calls: ToolFormat | None = None
    reasoning: ReasoningFormat | None = None
    forced: ToolFormat | None = None
    calls_name: str | None = None
    reasoning_name: str | None = None


def load_formats(config: EngineConfig, template: ChatTemplate) -> AnswerFormats:
    """The formats for a model with this chat template.

    A template without a variable ``tools`` shows no calls: such models are told in words how
    to write them, see `tool_prompt`.
    Raises ResolutionError for a name that no plugin offers, naming the setting.
    """
    server = config.server
    shown = detect.tool_format(template.source) if "tools" in template.variables else FALLBACK
    calls = _name(server.tool_call_parser, shown)
    reasoning = _name(server.reasoning_parser, detect.reasoning_format(template.source))
    wants = [_want(Role.TOOL_PARSER, FALLBACK, "tool_choice")]
    if calls is not None:
        wants.append(_want(Role.TOOL_PARSER, calls, "server.tool_call_parser"))
    if reasoning is not None:
        wants.append(_want(Role.REASONING_PARSER, reasoning, "server.reasoning_parser"))
    manifests = discover()
    host = PluginHost(manifests, config.plugins)
    host.load(resolve(wants, manifests, frozenset()))
    context = BuildContext(
        "cpu", "float32", EngineLimits(0, 0, 0, 0, 0), MonotonicClock(), MeasuredCosts()
    )
    return AnswerFormats(
        calls=None if calls is None else host.build(Role.TOOL_PARSER, calls, context),
        reasoning=None
        if reasoning is None
        else host.build(Role.REASONING_PARSER, reasoning, context),
        forced=host.build(Role.TOOL_PARSER, FALLBACK, context),
        calls_name=calls,
        reasoning_name=reasoning,
    )


def check_names(config: EngineConfig) -> None:
    """Raises as `load_formats` for names that are configured; imports no plugin."""
    server, manifests = config.server, discover()
    named = (
        (Role.TOOL_PARSER, server.tool_call_parser, "server.tool_call_parser"),
        (Role.REASONING_PARSER, server.reasoning_parser, "server.reasoning_parser"),
    )
    wants = [_want(role, name, field) for role, name, field in named if name not in (AUTO, NONE)]
    resolve(wants, manifests, frozenset())


def _name(configured: str, found: str | None) -> str | None:
    if configured == AUTO:
        return found
    return None if configured == NONE else configured


def _want(role: Role, name: str, field: str) -> Want:
    return Want(f"{role.value}:{name}", field, "the answers of this model")
