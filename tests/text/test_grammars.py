"""Grammars over a vocabulary: what compiles, what is refused, and what it may cost."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from rtp_core.api import StructuredOutput
from rtp_core.errors import RequestError
from rtp_core.text.structured import grammars as module
from rtp_core.text.structured.grammars import Grammars, estimated_bytes

sys.path.insert(0, str(Path(__file__).parent))
from byte_vocabulary import EOS, VOCAB, byte_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def grammars(tokenizer):
    return Grammars(lambda: tokenizer, VOCAB, (EOS,))


def accepts(grammars, tokenizer, structured, text):
    matcher = grammars.matcher(structured)
    ids = tokenizer.encode(text, add_special_tokens=False, allow_special=False)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


PERSON = StructuredOutput.of_schema(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


@pytest.mark.parametrize(
    ("structured", "text", "good"),
    [
        (PERSON, '{"name":"Jo","age":3}', True),
        (PERSON, '{"name":"Jo"}', False),
        (PERSON, '{"name":"Jo","age":3,"x":1}', False),
        (PERSON, '{ "name":"Jo","age":3}', False),  # compact
        (StructuredOutput.of_object(), '{"a":[1,{"b":null}]}', True),
        (StructuredOutput.of_object(), "[1]", False),
        (StructuredOutput("regex", r"[a-c]{2}-\d"), "ab-1", True),
        (StructuredOutput("regex", r"[a-c]{2}-\d"), "xab-1", False),
        (StructuredOutput("regex", "a/b"), "a/b", True),
        (StructuredOutput.of_choices(["yes", "no\n", 'a"\\b', "👩‍👩‍👧"]), "no\n", True),
        (StructuredOutput.of_choices(["yes", 'a"\\b']), 'a"\\b', True),
        (StructuredOutput.of_choices(["yes", "👩‍👩‍👧"]), "👩‍👩‍👧", True),
        (StructuredOutput.of_choices(["yes", "yesterday"]), "yester", False),
        (StructuredOutput.of_choices(["\x00\x1f\x7f"]), "\x00\x1f\x7f", True),
        (StructuredOutput("grammar", 'start: "A" DIGIT+\nDIGIT: /[0-9]/'), "A12", True),
        (StructuredOutput("grammar", 'start: "A" DIGIT+\nDIGIT: /[0-9]/'), "A", False),
    ],
)
def test_each_kind_matches_what_it_says(grammars, tokenizer, structured, text, good):
    assert accepts(grammars, tokenizer, structured, text) is good


@pytest.mark.parametrize(
    "structured",
    [
        StructuredOutput("regex", "(a"),
        StructuredOutput("grammar", "start: nothing"),
        StructuredOutput("grammar", "start: <|no_such_token|>"),
        StructuredOutput("json_schema", "{"),
        StructuredOutput("json_schema", '{"type":5}'),
        StructuredOutput.of_schema({"$ref": "https://example.com/a.json"}),
        StructuredOutput.of_schema({"$ref": "file:///etc/passwd"}),
        StructuredOutput.of_schema({"$ref": "#/nowhere"}),
        StructuredOutput.of_schema({"not": {}}),
        StructuredOutput.of_schema({"type": "integer", "minimum": 5, "maximum": 3}),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(grammars, structured):
    for _ in range(2):  # a refusal is not remembered as a success
        with pytest.raises(RequestError) as caught:
            grammars.matcher(structured)
        assert caught.value.param == "structured_outputs"
        assert caught.value.status == 400
        assert structured.kind in str(caught.value)
        assert len(str(caught.value)) < 500
    assert (grammars.counts.refused, grammars.counts.compiled) == (2, 0)


HOSTILE = {
    "nested repeats": ("regex", "(a{1,500}){1,500}"),
    "exponential": ("regex", "((a+)+)+$"),
    "quadratic": ("regex", "(.*a){40}"),
    "exponential automaton": ("regex", ".*a.{60}"),
    "long repeat": ("regex", ".{1,100000}"),
    "deep": ("regex", "(" * 60 + "a" + ")" * 60),
    "left recursion": ("grammar", 'start: start "a" | "b"'),
    "ambiguous": ("grammar", 'start: e\ne: e e | "a" | ""'),
    "many names": (
        "grammar",
        "start: a0\n" + "\n".join(f"a{n}: a{n + 1} a{n + 1}" for n in range(999)) + '\na999: "x"',
    ),
    "huge enum": ("json_schema", '{"enum":[' + ",".join(f'"v{n}"' for n in range(20_000)) + "]}"),
    "own reference": ("json_schema", '{"$ref":"#"}'),
    "many properties": (
        "json_schema",
        '{"properties":{'
        + ",".join(f'"p{n}":{{"pattern":"^(a|b)*c{{{n % 99}}}$"}}' for n in range(2000))
        + "}}",
    ),
    "many items": ("json_schema", '{"type":"array","minItems":1000000,"items":{"type":"integer"}}'),
    "long string": ("json_schema", '{"type":"string","minLength":1000000000}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grammar_is_refused_or_cheap(grammars, name):
    """Every step is bounded too: whatever happens, it happens soon."""
    began = time.thread_time()
    try:
        matcher = grammars.matcher(StructuredOutput(*HOSTILE[name]))  # pyright: ignore[reportArgumentType]
    except RequestError:
        matcher = None
    for _ in range(20 if matcher is not None else 0):
        mask = matcher.compute_bitmask()
        allowed = [token for token in range(VOCAB) if mask[token >> 3] >> (token & 7) & 1]
        if matcher.is_error() or matcher.is_stopped() or not allowed:
            break
        matcher.consume_token(allowed[len(allowed) // 2])
    assert time.thread_time() - began < 5.0


def test_the_same_constraint_compiles_once_and_matchers_are_apart(grammars, tokenizer):
    first, second = (grammars.matcher(StructuredOutput("regex", "ab")) for _ in range(2))
    assert (grammars.counts.compiled, grammars.counts.cached) == (1, 1)
    (a,) = tokenizer.encode("a", add_special_tokens=False, allow_special=False)
    assert first.consume_token(a)
    assert not first.is_accepting()
    assert second.validate_tokens([a]) == 1
    assert first.validate_tokens([a]) == 0


def test_what_is_kept_has_a_bound_in_bytes(tokenizer):
    one = estimated_bytes(StructuredOutput("regex", "a1"))
    grammars = Grammars(lambda: tokenizer, VOCAB, (EOS,), cache_bytes=3 * one)
    for number in range(5):
        grammars.matcher(StructuredOutput("regex", f"a{number}"))
        assert grammars.kept_bytes <= 3 * one
    grammars.matcher(StructuredOutput("regex", "a4"))
    assert grammars.counts.cached == 1
    grammars.matcher(StructuredOutput("regex", "a0"))  # the oldest had to leave
    assert grammars.counts.compiled == 6
    grammars.matcher(StructuredOutput("regex", "b" * 5000))  # larger than all the room
    assert grammars.kept_bytes <= 3 * one


def test_without_the_library_the_error_says_what_to_install(grammars, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(RequestError, match="pip install") as caught:
        grammars.matcher(StructuredOutput.of_object())
    assert caught.value.status == 501


def test_the_version_is_known_without_import():
    assert module.library_version() is not None
