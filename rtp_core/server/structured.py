"""response_format and structured_outputs become one constraint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from rtp_core.api import StructuredOutput
from rtp_core.api.structured import MAX_STRUCTURED_BYTES
from rtp_core.errors import RequestError
from rtp_core.server.schema.fields import GenerationBody, ResponseFormat, StructuredOutputs


def structured_output(body: GenerationBody) -> StructuredOutput | None:
    """What the body asks for. Raises RequestError naming the field it was asked in."""
    formatted = _formatted(body.response_format)
    if body.structured_outputs is None:
        return formatted
    if formatted is not None:
        raise RequestError(
            "structured_outputs", "structured_outputs and response_format exclude each other"
        )
    return _one_of(body.structured_outputs)


def _formatted(wanted: ResponseFormat | None) -> StructuredOutput | None:
    if wanted is None:
        return None
    match wanted.type, wanted.json_schema:
        case "text", None:
            return None
        case "json_object", None:
            return StructuredOutput.of_object()
        case "json_schema", schema if schema is not None:
            with named("response_format"):
                return _schema({} if schema.schema is None else schema.schema)
    raise RequestError(
        "response_format",
        "response_format is one of text, json_object, and json_schema with its json_schema",
    )


def _one_of(wanted: StructuredOutputs) -> StructuredOutput:
    given = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value}
    given |= {"json": wanted.json} if wanted.json is not None else {}
    if len(given) != 1:
        raise RequestError(
            "structured_outputs",
            "structured_outputs takes exactly one of json, regex, choice, grammar, json_object",
        )
    ((kind, value),) = given.items()
    match kind:
        case "json":
            return _schema(value)
        case "regex" | "grammar":
            return StructuredOutput(kind, value)
        case "choice":
            return StructuredOutput.of_choices(value)
        case _:
            return StructuredOutput.of_object()


def _schema(schema: Mapping[str, Any] | str) -> StructuredOutput:
    """Measured first, by the fast encoder: canonical text takes long to make."""
    if len(msgspec.json.encode(schema)) > 2 * MAX_STRUCTURED_BYTES:
        raise RequestError(
            "structured_outputs", f"a json_schema has at most {MAX_STRUCTURED_BYTES} bytes"
        )
    return StructuredOutput.of_schema(schema)


@contextmanager
def named(field: str) -> Iterator[None]:
    """Refusals name `field`."""
    try:
        yield
    except RequestError as error:
        if error.param is not None:
            error.param = field
        raise
