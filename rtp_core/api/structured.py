"""What the text of an answer must look like. Bounds are checked here, meaning by the compiler."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rtp_core.errors import RequestError

StructuredKind = Literal["json_object", "json_schema", "regex", "choice", "grammar"]

FIELD = "structured_outputs"
MAX_STRUCTURED_BYTES = 256 * 2**10
MAX_REGEX_BYTES = 16 * 2**10
MAX_NESTING = 64
MAX_STRUCTURED_CHOICES = 4096
_KINDS = get_args(StructuredKind)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_JSON_PARTS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_PATTERN_PARTS = re.compile(r"\\.|[\[\](){}]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """A constraint on the whole text of an answer; equal constraints are equal objects.

    `text` is canonical: compact JSON of the schema (json_schema) or of the list of strings
    (choice), the pattern (regex; it matches the whole answer), the Lark text (grammar), and
    empty for json_object. Use the constructors, which make it so. Raises RequestError naming
    ``structured_outputs`` when a bound on size or nesting is broken.
    """

    kind: StructuredKind
    text: str = ""

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise _refused(f"the kind of structured output is one of {', '.join(_KINDS)}")
        if not isinstance(self.text, str):
            raise _refused(f"the text of a {self.kind} is a string")
        if (self.text == "") != (self.kind == "json_object"):
            raise _refused("only json_object goes without a text")
        limit = MAX_REGEX_BYTES if self.kind == "regex" else MAX_STRUCTURED_BYTES
        if len(self.text) > limit or len(_encoded(self.text)) > limit:
            raise _refused(f"a {self.kind} has at most {limit} bytes")
        if self.kind in ("json_schema", "grammar", "regex"):
            _check_nesting(self.kind, self.text)
        if self.kind == "choice":
            _check_choices(self.text)

    @classmethod
    def of_schema(cls, schema: Mapping[str, Any] | bool | str) -> StructuredOutput:
        """An answer in JSON that a JSON Schema accepts; the schema as data or as JSON text."""
        if isinstance(schema, str):
            _check_nesting("json_schema", schema)
            try:
                schema = json.loads(schema)
            except ValueError:
                raise _refused("a json_schema is a JSON object") from None
        if not isinstance(schema, Mapping | bool):
            raise _refused("a json_schema is a JSON object")
        return cls("json_schema", _compact(schema))

    @classmethod
    def of_object(cls) -> StructuredOutput:
        """An answer that is a JSON object, whatever is in it."""
        return cls("json_object")

    @classmethod
    def of_choices(cls, choices: Sequence[str]) -> StructuredOutput:
        """An answer that is one of these strings."""
        if isinstance(choices, str) or len(choices) > MAX_STRUCTURED_CHOICES:
            raise _refused(f"choice is a list of 1 to {MAX_STRUCTURED_CHOICES} strings")
        return cls("choice", _compact(list(choices)))

    @property
    def choices(self) -> tuple[str, ...]:
        """The strings of a choice."""
        return tuple(json.loads(self.text))


def _refused(text: str) -> RequestError:
    return RequestError(FIELD, text)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _refused("a lone surrogate is no text") from None


def _compact(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError):
        raise _refused("it must be plain JSON data without NaN and infinity") from None
    except RecursionError:
        raise _too_deep("json_schema") from None


def _check_choices(text: str) -> None:
    try:
        choices = json.loads(text)
    except (ValueError, RecursionError):
        raise _refused("the text of a choice is a JSON list of strings") from None
    if not (isinstance(choices, list) and 0 < len(choices) <= MAX_STRUCTURED_CHOICES):
        raise _refused(f"choice is a list of 1 to {MAX_STRUCTURED_CHOICES} strings")
    if not all(isinstance(one, str) and one for one in choices):
        raise _refused("every choice is a string that is not empty")


def _check_nesting(kind: str, text: str) -> None:
    """Linear, and safe on any text: what comes after may recurse as deep as this allows."""
    depth = 0
    for found in (_JSON_PARTS if kind == "json_schema" else _PATTERN_PARTS).finditer(text):
        if found[0] in _OPENING:
            depth += 1
            if depth > MAX_NESTING:
                raise _too_deep(kind)
        elif found[0] in _CLOSING:
            depth -= 1


def _too_deep(kind: str) -> RequestError:
    return _refused(f"a {kind} is nested at most {MAX_NESTING} deep")
