"""Where templates come from, what they may do, and what clients are told."""

from __future__ import annotations

import json
import threading

import pytest

from rtp_core.errors import ConfigError, ModelError, RequestError
from rtp_core.text import chat_template
from rtp_core.text.chat_template import ChatTemplate

USER = [{"role": "user", "content": "hi"}]


def template(source, **special):
    return ChatTemplate({"default": source}, special)


def render(source, messages=USER, *, add_generation_prompt=False, **kwargs):
    return template(source).render(messages, add_generation_prompt=add_generation_prompt, **kwargs)


def write(directory, **files):
    for name, content in files.items():
        path = directory / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def test_the_model_s_files_are_read_in_order_of_precedence(tmp_path):
    write(tmp_path, tokenizer_config_DOT_json={"chat_template": "config"})
    assert ChatTemplate.load(tmp_path).render(USER, add_generation_prompt=False) == "config"
    write(tmp_path, chat_template_DOT_json={"chat_template": "json"})
    assert ChatTemplate.load(tmp_path).render(USER, add_generation_prompt=False) == "json"
    write(tmp_path, chat_template_DOT_jinja="jinja")
    assert ChatTemplate.load(tmp_path).render(USER, add_generation_prompt=False) == "jinja"


def test_an_override_is_a_path_or_a_template(tmp_path):
    write(tmp_path, chat_template_DOT_jinja="own", mine_DOT_jinja="file {{ messages|length }}")
    path = str(tmp_path / "mine.jinja")
    given = ChatTemplate.load(tmp_path, path)
    assert given.render(USER, add_generation_prompt=False) == "file 1"
    literal = ChatTemplate.load(tmp_path, "{{ messages[0].content }}!")
    assert literal.render(USER, add_generation_prompt=False) == "hi!"


def test_a_bad_override_is_a_config_error_with_its_remedy(tmp_path):
    with pytest.raises(ConfigError, match=r"neither a file nor a template .*Jinja file") as caught:
        ChatTemplate.load(tmp_path, "no/such/file")
    assert caught.value.field == "model.chat_template"
    with pytest.raises(ConfigError, match="line 2"):
        ChatTemplate.load(tmp_path, "{{ 1 }}\n{% for %}")


def test_a_broken_model_template_is_a_model_error(tmp_path):
    write(tmp_path, tokenizer_config_DOT_json={"chat_template": "{% if %}"})
    with pytest.raises(ModelError, match="not valid"):
        ChatTemplate.load(tmp_path)


def test_named_templates_serve_tool_requests(tmp_path):
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "tools {{ tools[0].name }}"},
    ]
    write(tmp_path, tokenizer_config_DOT_json={"chat_template": named})
    loaded = ChatTemplate.load(tmp_path)
    assert loaded.render(USER, add_generation_prompt=True) == "plain"
    tools = [{"name": "f"}]
    assert loaded.render(USER, add_generation_prompt=True, tools=tools) == "tools f"
    write(
        tmp_path,
        chat_template_DOT_jinja="file",
        additional_chat_templates__tool_use_DOT_jinja="more",
    )
    loaded = ChatTemplate.load(tmp_path)
    assert loaded.render(USER, add_generation_prompt=True, tools=tools) == "more"


def test_a_model_without_template_refuses_chats_with_the_remedy(tmp_path):
    with pytest.raises(RequestError, match=r"no chat template .*--chat-template") as caught:
        ChatTemplate.load(tmp_path).render(USER, add_generation_prompt=True)
    assert caught.value.param == "messages"


def test_special_tokens_of_the_model_are_variables(tmp_path):
    config = {"bos_token": {"content": "<s>"}, "extra_special_tokens": {"image_token": "<img>"}}
    write(
        tmp_path,
        tokenizer_config_DOT_json={
            **config,
            "chat_template": "{{bos_token}}{{eos_token}}{{image_token}}",
        },
        special_tokens_map_DOT_json={"eos_token": "</s>", "bos_token": "<old>"},
    )
    assert ChatTemplate.load(tmp_path).render(USER, add_generation_prompt=False) == "<s></s><img>"


def test_white_space_of_blocks_and_loop_controls_follow_hugging_face():
    source = """
    {% for m in messages %}
        {% if m.role == 'system' %}{% continue %}{% endif %}
{{ m.content }}
        {% generation %}g{% endgeneration %}
    {% endfor %}"""
    messages = [{"role": "system", "content": "no"}, *USER]
    assert render(source, messages) == "\nhi\ng"


def test_tojson_is_plain_json():
    source = "{{ messages[0].data | tojson }}{{ messages[0].data | tojson(indent=1) }}"
    data = {"b": "<é>'&", "a": [1, None]}
    assert render(source, [{"data": data}]) == (
        json.dumps(data, ensure_ascii=False) + json.dumps(data, ensure_ascii=False, indent=1)
    )


def test_strftime_now_formats_the_date():
    year = render("{{ strftime_now('%Y') }}")
    assert len(year) == 4
    assert year.isdigit()


@pytest.mark.parametrize(
    ("source", "messages", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", USER, "roles must alternate"),
        ("{{ 'x' + messages[0].content }}", [{"role": "user", "content": None}], "str"),
        ("{{ messages[5].content }}", USER, "no element 5"),
        ("{{ 1 // 0 }}", USER, "zero"),
        ("{{ (messages[0].content).__class__.__mro__ }}", USER, "unsafe"),
        ("{% set _ = messages.append(1) %}", USER, "append"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", USER, "recursion"),
    ],
)
def test_a_template_that_refuses_names_messages_and_the_reason(source, messages, reason):
    with pytest.raises(RequestError, match=reason) as caught:
        render(source, messages)
    assert caught.value.param == "messages"
    assert len(str(caught.value)) < 600


def test_output_beyond_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(chat_template, "MAX_RENDERED_CHARS", 1000)
    assert len(render("{{ 'x' * 1000 }}")) == 1000
    with pytest.raises(RequestError, match="over 1000 characters"):
        render("{% for i in range(1001) %}x{% endfor %}")


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(9999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ],
)
def test_a_template_that_does_not_end_is_stopped(monkeypatch, source):
    monkeypatch.setattr(chat_template, "MAX_RENDER_S", 0.1)
    with pytest.raises(RequestError, match=r"over 0\.1 s"):
        render(source)


def test_variables_are_what_a_request_may_set():
    source = (
        "{{ bos_token }}{% set x = 1 %}{{ x }}{% if tools %}{% endif %}{{ enable_thinking }}"
        "{% for m in messages %}{{ loop.index }}{% endfor %}{% set n = namespace(a=1) %}"
        "{{ raise_exception if false }}{{ strftime_now if false }}"
    )
    assert template(source, bos_token="<s>").variables == {"tools", "enable_thinking"}


def test_keywords_reach_the_template_and_unknown_ones_are_refused():
    source = "{{ 'on' if enable_thinking else 'off' }}{{ bos_token }}"
    assert render(source, enable_thinking=True) == "on"
    assert render(source) == "off"
    with pytest.raises(RequestError, match=r"'enable_thinkin'.*enable_thinking") as caught:
        render(source, enable_thinkin=True)
    assert caught.value.param == "chat_template_kwargs"
    with pytest.raises(RequestError):
        template(source, bos_token="<s>").render(USER, add_generation_prompt=True, bos_token="x")


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_the_last_message_can_be_continued():
    messages = [*USER, {"role": "assistant", "content": "Sure, "}]
    text = render(CHATML, messages, continue_final_message=True)
    assert text.endswith("<|im_start|>assistant\nSure, ")
    trimming = CHATML.replace("m.content", "m.content | trim")
    assert render(trimming, messages, continue_final_message=True).endswith("Sure,")
    parts = [{"role": "user", "content": [{"type": "text", "text": "a b"}, {"type": "image"}]}]
    source = "{% for p in messages[0].content %}[{{ p.text or p.type }}]{% endfor %}"
    assert render(source, parts, continue_final_message=True) == "[a b"


@pytest.mark.parametrize(
    ("messages", "generation"),
    [(USER, True), ([], False), ([{"role": "user", "content": None}], False)],
)
def test_a_continuation_that_makes_no_sense_is_refused(messages, generation):
    with pytest.raises(RequestError) as caught:
        render(CHATML, messages, add_generation_prompt=generation, continue_final_message=True)
    assert caught.value.param == "continue_final_message"


def test_threads_share_one_template():
    shared = template("{% for m in messages %}{{ m.content }},{% endfor %}")
    results = {}

    def work(number):
        messages = [{"content": str(number)}] * 50
        results[number] = shared.render(messages, add_generation_prompt=False)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: f"{n}," * 50 for n in range(8)}
