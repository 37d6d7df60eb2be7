"""A schema or pattern ends at most its own request, soon.

vLLM CVE-2025-48942, -48943, -48944 (a bad pattern or schema ended the engine), -29770 (compiled
grammars filled the disk), -32381 and xgrammar CVE-2025-57809 (recursion without end); tool
schemas are the same door.
"""

from __future__ import annotations

import json

import pytest
from target import CHAT, HELLO, TEXT

NESTED = {"type": "string"}
for _ in range(40):
    NESTED = {"type": "object", "properties": {"a": NESTED}, "required": ["a"]}
LOOP = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
TREE = {
    "$defs": {
        "n": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/n"}}, {"type": "null"}]}
    },
    "$ref": "#/$defs/n",
}
WIDE = {"anyOf": [{"properties": {f"p{n}": {"pattern": f"^(a|b)*{n}$"}}} for n in range(400)]}
PRODUCT = {"allOf": [{"anyOf": [{"minimum": n}, {"maximum": n}]} for n in range(24)]}
SCHEMAS = {
    "nested": NESTED,
    "reference to itself": {"$ref": "#"},
    "circle": LOOP,
    "tree": TREE,
    "wide": WIDE,
    "product": PRODUCT,
    "bad pattern": {"type": "string", "pattern": "(["},
    "look-behind": {"type": "string", "pattern": "(?<=a)b"},
    "back reference": {"type": "string", "pattern": r"(a)\1"},
    "catastrophe": {"type": "string", "pattern": "^((a+)+)+$"},
    "repeats": {"type": "string", "pattern": "((a{1,999}){1,999}){1,999}"},
    "long": {"type": "string", "minLength": 10**9},
    "many": {"type": "array", "minItems": 10**9},
    "negative": {"type": "array", "minItems": -1},
    "no such type": {"type": "nothing"},
    "type of lists": {"type": [[], {}]},
    "unknown format": {"type": "string", "format": "no-such-format"},
    "huge number": {"type": "integer", "minimum": 10**300},
    "tiny multiple": {"type": "number", "multipleOf": 1e-300},
    "empty enum": {"enum": []},
    "names": {"properties": {"a" * 50_000: {}}},
    "pattern names": {"patternProperties": {"(a+)+$": {}, "([": {}}},
    "false": {"not": {}},
    "conditions": {"if": {"const": 1}, "then": {"const": 2}, "else": False},
    "dynamic": {"$dynamicRef": "#x", "$dynamicAnchor": "x"},
}
PATTERNS = [
    "((a+)+)+$", "(a|a)*$", "(a|aa)+$", "(.*a){40}", ".*a.{60}", "(a{1,500}){1,500}", "a{99999}",
    "a{99999999999}", "(" * 5000 + "a" + ")" * 5000, "[" * 9999, "(?:" * 999, "\\p{L}{500}",
    "(?i)" * 1000 + "a", "a**", "*", "\\", "[z-a]", "(?P<n>a)(?P=n)", "(?=a)b", "\\x{110000}",
    "\\udfff", "[^\\s\\S]", "\x00", "x" * 16_384, "|".join(f"w{n}" for n in range(2000)), "(?#",
]  # fmt: skip
GRAMMARS = [
    'start: start "a" | "b"', 'start: a\na: a a a | ""', "start: start", "start:", "", "start: b",
    'start: "a"~1000000000', "start: /((a+)+)+/", "start: " + "(" * 3000 + '"a"' + ")" * 3000,
    "start: a0\n" + "\n".join(f"a{n}: a{n + 1} a{n + 1}" for n in range(60)) + '\na60: "x"',
    "%import common.WORD\nstart: WORD", "%ignore /.*/\nstart: /a/", '%override start: "a"',
    "start: %json {", "start: %regex {}", 'start: %json {"$ref": "file:///etc/passwd"}',
    "start: <[99999999]>", "start: <[0-999999999]>", "start: <|no_such|>", "start[lazy]: /a*/",
    "?start: x\n" * 2000, "start: \x00", "root ::= root", "start: @f\n",
    '%llguidance {"x": 1}\nstart: "a"',
]  # fmt: skip


def check(target, path, body):
    before = target.vitals()
    answer = target.post(path, {**body, "max_tokens": 4})
    used = target.vitals()
    assert answer.status_code in (200, 400), answer.text
    assert answer.status_code == 200 or len(answer.content) < 2000
    assert used.cpu_s - before.cpu_s < 4.0
    assert used.rss - before.rss < 200 * 2**20


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas(target, name):
    schema = SCHEMAS[name]
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    check(target, CHAT, {**HELLO, "response_format": named})
    check(target, TEXT, {"prompt": "x", "structured_outputs": {"json": json.dumps(schema)}})
    form = {"format": {"type": "json_schema", "schema": schema}}
    answer = target.post("/v1/messages", {**HELLO, "max_tokens": 4, "output_config": form})
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_schemas_of_tools(target, name, choice):
    parameters = {"type": "object", "properties": {"a": SCHEMAS[name]}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    check(target, CHAT, {**HELLO, "tools": [tool], "tool_choice": choice})


@pytest.mark.parametrize("pattern", PATTERNS, ids=range(len(PATTERNS)))
def test_patterns(target, pattern):
    check(target, CHAT, {**HELLO, "structured_outputs": {"regex": pattern}})
    schema = {"type": "string", "pattern": pattern}
    check(target, CHAT, {**HELLO, "structured_outputs": {"json": schema}})


@pytest.mark.parametrize("grammar", GRAMMARS, ids=range(len(GRAMMARS)))
def test_grammars(target, grammar):
    check(target, CHAT, {**HELLO, "structured_outputs": {"grammar": grammar}})


def test_ever_new_grammars_do_not_pile_up(target):
    """vLLM CVE-2025-29770: each unique schema left a file; here, a bounded number stays."""
    for at in range(50):
        target.post(CHAT, {**HELLO, "structured_outputs": {"regex": f"warm{at}"}})
    before = target.vitals()
    for at in range(400):
        pattern = f"({at}|[a-z]{{{at % 50 + 1}}}){'x' * 500}"
        answer = target.post(CHAT, {**HELLO, "structured_outputs": {"regex": pattern}})
        assert answer.status_code == 200
    after = target.vitals()
    assert after.rss - before.rss < 128 * 2**20
    assert after.files <= before.files + 4
