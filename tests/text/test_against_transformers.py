"""Our reading of a model directory against transformers' AutoTokenizer."""

from __future__ import annotations

import pytest

from rtp_core.text.chat_template import ChatTemplate, encode_chat
from rtp_core.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

TEXTS = [
    "The fox  jumps 12345\n\n1. over",
    "héllo 日本語 👩‍👩‍👧‍👦",
    "a<|im_end|>b</s>c<s>d",
    " leading and trailing ",
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if loop.first and m.role == 'system' %}"
    "<<{{ m.content | trim }}>>\n    {% else %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endif %}"
    "{% endfor %}\n{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}"
)
MESSAGES = [
    {"role": "system", "content": " be brief "},
    {"role": "user", "content": "What is 'é' & <b>?"},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"x": "é"}}]},
    {"role": "user", "content": "12 dogs"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


@pytest.fixture(params=["byte_level", "pieces"])
def both(request, make_backend, save):
    """The same directory read by us and by transformers."""
    roles = {"byte_level": ("<|im_start|>", "<|im_end|>"), "pieces": ("<s>", "</s>")}
    bos, eos = roles[request.param]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": {"content": eos, "__type": "AddedToken"},
        "chat_template": TEMPLATE,
    }
    directory = save(make_backend[request.param](), config=config)
    theirs = transformers.AutoTokenizer.from_pretrained(str(directory))
    return directory, Tokenizer.load(directory), theirs


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_texts_are_the_same(both, text):
    _, ours, theirs = both
    ids = ours.encode(text, add_special_tokens=True, allow_special=True)
    assert ids == theirs(text)["input_ids"]
    for skip in (True, False):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(
            ids, skip_special_tokens=skip
        )


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("generation", [True, False])
def test_chats_are_the_same(both, generation, tools):
    directory, ours, theirs = both
    template = ChatTemplate.load(directory)
    options = {"add_generation_prompt": generation, "tools": tools}
    text = theirs.apply_chat_template(MESSAGES, tokenize=False, **options)
    assert template.render(MESSAGES, **options) == text
    ids = theirs.apply_chat_template(MESSAGES, tokenize=True, return_dict=False, **options)
    assert encode_chat(ours, template, MESSAGES, **options) == ids


def test_a_continued_message_is_the_same(both):
    directory, _, theirs = both
    ours = ChatTemplate.load(directory).render(
        MESSAGES, add_generation_prompt=False, continue_final_message=True
    )
    assert ours == theirs.apply_chat_template(MESSAGES, tokenize=False, continue_final_message=True)
