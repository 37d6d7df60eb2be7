"""/openapi.json, made from the table of operations and the types of bodies."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from rtp_core import __version__
from rtp_core.server.error_shape import ONE_SHAPE
from rtp_core.server.exchange import Call, Reply
from rtp_core.server.operation import Operation
from rtp_core.server.schema.refused import REFUSED
from rtp_core.server.schema.responses import RESPONSES_REFUSED

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_ERRORS = {
    400: "A field is wrong; `param` names it.",
    401: "The API key is missing or wrong.",
    403: "The server is open to other machines without a key.",
    404: "There is no such model or thing.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    500: "An error of the server.",
    501: "The model cannot read this medium.",
    503: "Loading, full, draining or broken; see Retry-After.",
    529: "Full; see Retry-After.",
}
_PROMPT = {
    "description": "Text, token ids, or a list of either.",
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 128},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
        {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "minItems": 1,
            "maxItems": 128,
        },
    ],
}


def openapi(table: Sequence[Operation], root_path: str | None = None) -> Operation:
    """Described when first asked for: schemas take longer than all the rest of the start."""

    @functools.cache
    def described() -> Reply:
        servers = {"servers": [{"url": root_path}]} if root_path else {}
        return Reply.json(document([*table, operation]) | servers)

    async def describe(call: Call) -> Reply:
        return described()

    operation = Operation("GET", "/openapi.json", "This document.", describe)
    return operation


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """OpenAPI 3.1 for these operations."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = _PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "rtp", "version": __version__, "description": _notes()},
        "paths": paths,
        "components": {
            "schemas": {**_errors(operations), **_bodies(operations)},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _identifier(operation),
        "responses": _responses(operation),
        "security": [] if operation.public else [{"key": []}],
    }
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(operation.body.__name__)}},
        }
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]
    in_query = [
        {"name": name, "in": "query", "schema": {"type": "number"}} for name in operation.query
    ]
    return in_path + in_query


def _responses(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {operation.media_type: {}}
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": content}}
    for status in _statuses(operation):
        responses[str(status)] = {
            "description": _ERRORS[status],
            "content": {"application/json": {"schema": _reference(operation.errors.name)}},
        }
    return responses


def _statuses(operation: Operation) -> list[int]:
    statuses = {500}
    if not operation.public:
        statuses.add(401)
    if operation.needs_model or operation.public:
        statuses.add(503)
    if operation.body is not None:
        statuses |= {400, 404, 408, 413, 415, 503}
    if operation.query:
        statuses.add(400)
    if "{" in operation.path:
        statuses.add(404)
    if operation.operator:
        statuses.add(403)
    if operation.errors is not ONE_SHAPE:
        statuses.add(529)
    elif operation.streams or operation.path == "/tokenize":
        statuses.add(501)
    return sorted(statuses)


def _errors(operations: Sequence[Operation]) -> dict[str, Any]:
    return {operation.errors.name: operation.errors.schema for operation in operations}


def _bodies(operations: Sequence[Operation]) -> dict[str, Any]:
    """Schemas of bodies; fields beyond those described are refused."""
    kinds = [operation.body for operation in operations if operation.body is not None]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for operation in operations:
        if operation.body is None:
            continue
        schema = schemas[operation.body.__name__]
        schema["additionalProperties"] = False
        for name in sorted(operation.ignored):
            schema["properties"].setdefault(name, {"description": "Accepted and ignored."})
    schemas["CompletionBody"]["properties"]["prompt"] = _PROMPT
    return schemas


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _identifier(operation: Operation) -> str:
    words = re.findall(r"\w+", operation.path.replace(":path", ""))
    return "_".join([operation.method.lower(), *words])


def _notes() -> str:
    return f"Fields known but refused: {', '.join(sorted(REFUSED | RESPONSES_REFUSED))}."
