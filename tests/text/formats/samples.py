"""What each family writes, and what is in it."""

from __future__ import annotations

import re

from rtp_core.api import ContentDelta, ReasoningDelta, Tool, ToolArguments, ToolStart
from rtp_core.text.answer_reader import append
from rtp_core.text.formats import tool_formats

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "where": {"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}]},
    },
    "required": ["city"],
    "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "number"}}}},
}
TOOLS = (Tool("get_weather", "Says the weather.", WEATHER), Tool("now"))
FORMATS = {
    "hermes": tool_formats.hermes(),
    "qwen3_coder": tool_formats.qwen3_coder_xml(),
    "llama3_json": tool_formats.llama3_json(),
    "mistral": tool_formats.mistral(),
    "pythonic": tool_formats.pythonic(),
    "deepseek_v3": tool_formats.deepseek_v3(),
}
OSLO, NOW = ("get_weather", '{"city": "Oslo", "days": 3}'), ("now", "{}")
_BEGIN = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
SAMPLES = [
    (
        "hermes",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}\n'
        '</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        "",
        [OSLO, NOW],
    ),
    ("hermes", 'I look.\n<tool_call>{"name": "now"}</tool_call>\n', "I look.", [NOW]),
    ("hermes", '<tool_call>[{"name": "now"}, {"name": "now"}]</tool_call>', "", [NOW, NOW]),
    ("hermes", '<tool_call>{"name": "now"}', "", [NOW]),
    ("hermes", '<tool_call>{"name": "now"}</tool_', "", [NOW]),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
        "",
        [("f", '{"a": 1}')],
    ),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": "</tool_call>\n\\ud83d\\ude00"}}</tool_call>',
        "",
        [("f", '{"a": "</tool_call>\\n😀"}')],
    ),
    ("hermes", '<tool_call>{"name": "now"}</tool_call>\n\nDone.', "Done.", [NOW]),
    ("hermes", 'So:\n<tool_call>{"name": "now"}</tool_call>\nOk', "So:\n\nOk", [NOW]),
    (
        "qwen3_coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=now>\n</function>\n</tool_call>",
        "",
        [OSLO, NOW],
    ),
    (
        "qwen3_coder",
        "<function=get_weather>\n<parameter=city>\n3 < 4 </p>\n\n</parameter>\n"
        "<parameter=where>\nnull\n</parameter>\n<parameter=days>\nmany\n</parameter>\n</function>",
        "",
        [("get_weather", '{"city": "3 < 4 </p>\\n", "where": null, "days": "many"}')],
    ),
    (
        "llama3_json",
        '{"name": "get_weather", "parameters": {"city": "Oslo", "days": 3}}; '
        '{"name": "now", "parameters": {}}',
        "",
        [OSLO, NOW],
    ),
    ("llama3_json", '<|python_tag|>{"name": "now", "parameters": {}}', "", [NOW]),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}, '
        '{"name": "now", "arguments": {}}]',
        "",
        [OSLO, NOW],
    ),
    (
        "mistral",
        'Well. [TOOL_CALLS]get_weather[ARGS]{"city": "Oslo", "days": 3}[TOOL_CALLS]now{}',
        "Well.",
        [OSLO, NOW],
    ),
    ("pythonic", '[get_weather(city="Oslo", days=3), now()]', "", [OSLO, NOW]),
    (
        "pythonic",
        "<|python_start|>[now(a=-1.5, b={'x': [True, None, false]}, c='it\\'s]')]<|python_end|>",
        "",
        [("now", '{"a": -1.5, "b": {"x": [true, null, false]}, "c": "it\'s]"}')],
    ),
    (
        "deepseek_v3",
        f'Yes. {_BEGIN}function<｜tool▁sep｜>get_weather\n```json\n{{"city": "Oslo", "days": 3}}'
        "\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "Yes.",
        [OSLO, NOW],
    ),
    (
        "deepseek_v3",
        f"{_BEGIN}now<｜tool▁sep｜>{{}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
        [NOW],
    ),
]
MALFORMED = [
    ("hermes", '<tool_call>{"name": "now", "arguments": {]}</tool_call> and so'),
    ("hermes", '<tool_call>{"name": "now", "arguments": [1]}</tool_call>'),
    ("hermes", '<tool_call>{"arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": 5}</tool_call>'),
    ("hermes", '<tool_call>{"name": ""}</tool_call>'),
    ("hermes", '<tool_call>{"name": "\\ud800"}</tool_call>'),
    ("hermes", '<tool_call>{"name": "now", "arguments": {"a": NaN}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "now", "arguments": {"a": 1e999}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "now", "argum'),
    ("hermes", "<tool_call></tool_call>"),
    ("hermes", "<tool_call> []</tool_call>"),
    ("hermes", "<tool_call> [1, 2]</tool_call>"),
    ("hermes", "The tag <tool_call> begins a call."),
    ("hermes", "  a <tool_cal\n <"),
    ("qwen3_coder", "<tool_call>\n<function=now>\n<parameter=a>\n1\n</parameter>"),
    ("qwen3_coder", "<tool_call>\n<function=now>\nx</function>\n</tool_call>"),
    ("qwen3_coder", "<tool_call> no"),
    ("qwen3_coder", "<function=" + "x" * 300 + "></function>"),
    ("llama3_json", '{"answer": 42}'),
    ("llama3_json", '{"name": "Ada", "parameters": {}}'),
    ("llama3_json", "<|python_tag|>print(1)"),
    ("llama3_json", 'It is {"name": "now", "parameters": {}}'),
    ("mistral", '[TOOL_CALLS][{"name": "now"'),
    ("mistral", "[TOOL_CALLS]now[ARG]{}"),
    ("mistral", "[TOOL_CALLS]\n"),
    ("pythonic", "[1, 2, 3]"),
    ("pythonic", "[now(), len]"),
    ("pythonic", "[now(1)]"),
    ("pythonic", "[now(a=1, a=2)]"),
    ("pythonic", "[now(**{'a': 1})]"),
    ("pythonic", "[now(a=open('x'))]"),
    ("pythonic", "[now(a=1 + 1)]"),
    ("pythonic", "[now(a=b'x')]"),
    ("pythonic", "[__import__('os').system('true')]"),
    ("pythonic", "[now(a=" + "-" * 60_000 + "1)]"),
    ("pythonic", "[now(a=" + "[" * 40 + "]" * 40 + ")]"),
    ("pythonic", "[now(a='" + "x" * 70_000 + "')]"),
    ("deepseek_v3", f"{_BEGIN}function<｜tool▁sep｜>now\n```json\n{{}}\n``` so"),
    ("deepseek_v3", "<｜tool▁calls▁begin｜> nothing <｜tool▁calls▁end｜>"),
    ("deepseek_v3", f"{_BEGIN}" + "x" * 300),
]


def told(parser, text, sizes=(10**9,)):
    """Events of `text` given in pieces of these sizes, neighbours joined, ids made plain."""
    events, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        for event in parser.feed(text[at : at + size]):
            append(events, event)
        at, turn = at + size, turn + 1
    for event in parser.end():
        append(events, event)
    return [
        ToolStart(one.index, "", one.name) if isinstance(one, ToolStart) else one for one in events
    ]


def content(events):
    return "".join(one.text for one in events if isinstance(one, ContentDelta))


def thoughts(events):
    return "".join(one.text for one in events if isinstance(one, ReasoningDelta))


def calls(events):
    """(name, arguments) of each call; checks their order."""
    found = []
    for event in events:
        if isinstance(event, ToolStart):
            assert event.index == len(found)
            found.append((event.name, ""))
        elif isinstance(event, ToolArguments):
            name, text = found[-1]
            assert event.index == len(found) - 1
            found[-1] = (name, text + event.text)
    return found


def squeezed(text):
    return re.sub(r"\s+", "", text)
