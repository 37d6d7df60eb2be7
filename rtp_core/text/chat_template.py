"""Chat messages to a prompt, by the template that comes with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jinja2

from rtp_core.errors import ConfigError, ModelError, RequestError
from rtp_core.text.control_text import new_mark
from rtp_core.text.template_environment import CompiledTemplate
from rtp_core.text.tokenizer import Tokenizer
from rtp_core.text.tokenizer_files import (
    named_special_tokens,
    read_config,
    read_object,
    read_text,
)

MAX_RENDERED_CHARS = 2**26
MAX_RENDER_S = 10.0
_MAX_MESSAGE_CHARS = 500
_DEFAULT, _WITH_TOOLS = "default", "tool_use"
_FIXED = frozenset({"messages", "add_generation_prompt", "continue_final_message"})
_FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template raises when messages have a shape it was not written for."""

Messages = Sequence[Mapping[str, Any]]


class ChatTemplate:
    """The templates of one model by name; without any, `render` refuses. Thread-safe.

    `special_tokens` are the variables such as ``bos_token``. Raises ModelError when a
    source is not a template.
    """

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        self._templates = {name: _compile(name, source) for name, source in sources.items()}
        self._special_tokens = dict(special_tokens)
        self.source = "\n".join(sources.values())

    @classmethod
    def load(cls, directory: Path, override: str | None = None) -> Self:
        """`override` (a path, or a template as text) wins over the model's own files.

        Those are chat_template.jinja, chat_template.json and tokenizer_config.json, in this
        order. Raises ConfigError for a bad override, ModelError for a damaged file.
        """
        special = named_special_tokens(directory)
        if override is None:
            return cls(_model_sources(directory), special)
        try:
            return cls({_DEFAULT: _override_source(override)}, special)
        except ModelError as error:
            raise ConfigError("model.chat_template", error.message) from error

    @property
    def variables(self) -> frozenset[str]:
        """What a request may set: the names the templates read, ``tools`` among them."""
        names = {name for template in self._templates.values() for name in template.names}
        return frozenset(names - _FIXED - self._special_tokens.keys())

    def render(
        self,
        messages: Messages,
        /,
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> str:
        """The prompt as text.

        With `continue_final_message` it ends where the last message's content ends. Further
        keywords are variables of the template. Raises RequestError naming the field when
        the model has no template, does not know a keyword, or its template refuses.
        """
        template = self._choose(tools)
        self._check_names(kwargs)
        end = new_mark() if continue_final_message else None
        if end is not None:
            _check_continuation(messages, add_generation_prompt)
            messages = [*messages[:-1], _with_end(messages[-1], f"{end} ")]
        variables = {
            "documents": None,
            **self._special_tokens,
            **kwargs,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        text = _render(template, variables)
        return text if end is None else _cut(text, end)

    def _choose(self, tools: Sequence[Mapping[str, Any]] | None) -> CompiledTemplate:
        wanted = (_WITH_TOOLS, _DEFAULT) if tools else (_DEFAULT,)
        found = next((self._templates[name] for name in wanted if name in self._templates), None)
        if found is None:
            raise RequestError(
                "messages",
                "this model has no chat template",
                remedy="start with --chat-template FILE, or send a prompt to /v1/completions",
            )
        return found

    def _check_names(self, given: Mapping[str, Any]) -> None:
        for name in given:
            if name not in self.variables:
                known = ", ".join(sorted(self.variables)) or "none"
                raise RequestError(
                    "chat_template_kwargs",
                    f"this model's chat template reads no variable {name!r}",
                    remedy=f"it reads: {known}",
                )


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Messages,
    /,
    *,
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None = None,
    continue_final_message: bool = False,
    **kwargs: Any,
) -> list[int]:
    """Ids of a rendered conversation: the template's special tokens are control tokens,
    the same characters in messages, tools and keywords are text.

    Without such characters the ids are those of encoding the rendered text as a whole.
    Raises RequestError as `ChatTemplate.render`.
    """
    control = tokenizer.control_text
    given = {**kwargs, "messages": messages, "tools": tools}
    mark = new_mark() if control.occurs_in(given) else None
    if mark is not None:
        given = control.hide(given, mark)
    text = template.render(
        given.pop("messages"),
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        **given,
    )
    return tokenizer.encode_chat_text(text, mark)


def _compile(name: str, source: str) -> CompiledTemplate:
    try:
        return CompiledTemplate(source)
    except (jinja2.TemplateError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise ModelError(f"the chat template {name!r}{where} is not valid: {error}") from error


def _render(template: CompiledTemplate, variables: dict[str, Any]) -> str:
    try:
        return template.render(variables, max_chars=MAX_RENDERED_CHARS, max_seconds=MAX_RENDER_S)
    except _FAILURES as error:
        reason = str(error)[:_MAX_MESSAGE_CHARS] or type(error).__name__
        raise RequestError(
            "messages", f"the model's chat template refuses these messages: {reason}"
        ) from error


def _override_source(override: str) -> str:
    """Text with template syntax is a template; anything else names a file."""
    if "{{" in override or "{%" in override:
        return override
    path = Path(override).expanduser()
    if not path.is_file():
        raise ConfigError(
            "model.chat_template",
            f"{override!r} is neither a file nor a template",
            remedy="pass the path of a Jinja file, or the template itself",
        )
    return read_text(path)


def _model_sources(directory: Path) -> dict[str, str]:
    """Templates by name from the first of the model's files that has any."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        more = sorted((directory / "additional_chat_templates").glob("*.jinja"))
        return {_DEFAULT: read_text(file), **{path.stem: read_text(path) for path in more}}
    for source in (read_object(directory / "chat_template.json"), read_config(directory)):
        found = _by_name(source.get("chat_template"))
        if found:
            return found
    return {}


def _by_name(value: Any) -> dict[str, str]:
    """A template, or a list of ``{"name", "template"}``."""
    if isinstance(value, str):
        return {_DEFAULT: value}
    if not isinstance(value, list):
        return {}
    return {
        one["name"]: one["template"]
        for one in value
        if isinstance(one, dict) and {"name", "template"} <= one.keys()
    }


def _check_continuation(messages: Messages, add_generation_prompt: bool) -> None:
    if add_generation_prompt:
        raise RequestError(
            "continue_final_message",
            "continue_final_message and add_generation_prompt exclude each other",
            remedy="set add_generation_prompt to false",
        )
    if not messages or not messages[-1].get("content"):
        raise RequestError("continue_final_message", "the last message has no content to continue")


def _with_end(message: Mapping[str, Any], end: str) -> dict[str, Any]:
    """The message with `end` after its text, or after the last text part of its content."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content + end}
    parts = list(content)
    for at in range(len(parts) - 1, -1, -1):
        if isinstance(parts[at], Mapping) and isinstance(parts[at].get("text"), str):
            parts[at] = {**parts[at], "text": parts[at]["text"] + end}
            return {**message, "content": parts}
    raise RequestError("continue_final_message", "the last message has no text to continue")


def _cut(text: str, end: str) -> str:
    """The text before `end`; trimmed where the template trimmed the space after it."""
    at = text.rfind(end)
    if at < 0:
        raise RequestError(
            "continue_final_message", "this model's chat template drops the last message's text"
        )
    kept = text[:at]
    return kept if text[at + len(end) :].startswith(" ") else kept.rstrip()
