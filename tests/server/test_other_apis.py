"""Thoughts, calls of tools and schemas through the official clients of both other APIs."""

from __future__ import annotations

import json
import shutil

import anthropic
import kit
import openai
import pytest
from kit import TEMPLATE, LiveServer, ScriptBackend, settings

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
SCRIPT = f"<think>\nhm\n</think>\n\nLet me see.\n{CALL}"
FUNCTION = {"type": "function", "name": "weather", "parameters": SCHEMA}
TOOL = {"name": "weather", "input_schema": SCHEMA}
HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def server(model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools") / "model"
    shutil.copytree(model_dir, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE + "{# <think> </think> #}")
    config = settings(
        port=0, tool_call_parser="hermes", enable_auto_tool_choice=True, reasoning_parser="qwen3"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit, "MAX_MODEL_LEN", 4096)
        with LiveServer(lambda: ScriptBackend(folder, (SCRIPT,), 3), config) as live:
            yield live


@pytest.fixture
def responses(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        yield client.responses


@pytest.fixture
def messages(server):
    with anthropic.Anthropic(base_url=server.url, api_key="x", max_retries=0) as client:
        yield client.messages


def last_sampling(server):
    return server.on_loop(lambda: server.backend.requests[-1].sampling)


def test_responses_tell_thoughts_text_and_calls(responses):
    answer = responses.create(model="demo", input="Hi", tools=[FUNCTION])
    thought, message, call = answer.output
    assert thought.content[0].text.strip() == "hm"
    assert message.content[0].text.strip() == "Let me see."
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "weather",
        {"city": "Oslo"},
    )
    assert answer.usage.output_tokens_details.reasoning_tokens > 0
    with responses.stream(model="demo", input="Hi", tools=[FUNCTION]) as stream:
        final = stream.get_final_response()
    assert [item.type for item in final.output] == [item.type for item in answer.output]
    assert final.output[0].content[0].text == thought.content[0].text
    assert final.output[1].content[0].text == message.content[0].text
    assert final.output[2].arguments == call.arguments
    follow_up = [
        *HELLO,
        *(item.model_dump(exclude_none=True) for item in answer.output),
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    assert responses.create(model="demo", input=follow_up, tools=[FUNCTION]).output


def test_messages_tell_thoughts_text_and_calls(messages):
    asked = {"model": "demo", "max_tokens": 500, "messages": HELLO, "tools": [TOOL]}
    answer = messages.create(**asked)
    thought, text, call = answer.content
    assert (thought.type, thought.thinking.strip()) == ("thinking", "hm")
    assert (text.type, text.text.strip()) == ("text", "Let me see.")
    assert (call.type, call.name, call.input) == ("tool_use", "weather", {"city": "Oslo"})
    assert answer.stop_reason == "tool_use"
    with messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert [one.type for one in final.content] == [one.type for one in answer.content]
    assert final.content[2].input == call.input
    assert final.content[0].thinking == thought.thinking
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    history = [
        *HELLO,
        {"role": "assistant", "content": [one.model_dump() for one in answer.content]},
        {"role": "user", "content": [result]},
    ]
    assert messages.create(**{**asked, "messages": history}).content


def test_forced_calls_and_schemas_become_constraints(server, responses, messages):
    responses.create(model="demo", input="Hi", tools=[FUNCTION], tool_choice="required")
    assert last_sampling(server).structured.kind == "grammar"
    asked = {"model": "demo", "max_tokens": 500, "messages": HELLO}
    messages.create(**asked, tools=[TOOL], tool_choice={"type": "tool", "name": "weather"})
    assert last_sampling(server).structured.kind == "grammar"
    text = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}
    responses.create(model="demo", input="Hi", text=text)
    assert last_sampling(server).structured.kind == "json_schema"
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    messages.create(**asked, output_config=config)
    assert json.loads(last_sampling(server).structured.text) == SCHEMA


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{**FUNCTION, "parameters": 5}]}, "tools[0].parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 5}}}},
            "text.format",
        ),
    ],
)
def test_mistakes_have_this_apis_names(responses, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        responses.create(model="demo", input="Hi", **fields)
    assert refused.value.param.startswith(param)
