"""Thoughts told from answers, whatever the prompt began."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from samples import content, squeezed, thoughts, told

from rtp_core.text.formats.thinking import ThinkFormat

QWEN, R1 = ThinkFormat(), ThinkFormat(begins_inside=True)
OPEN, CLOSED = "<|im_start|>assistant\n<think>\n", "assistant\n<think>\n\n</think>\n\n"


@pytest.mark.parametrize("sizes", [(10**9,), (1,), (2, 5)])
@pytest.mark.parametrize(
    ("form", "prompt", "text", "thought", "said"),
    [
        (QWEN, "", "<think>\nhm, 1 < 2\n</think>\n\nYes. ", "hm, 1 < 2", "Yes. "),
        (QWEN, "", "\nYes", "", "\nYes"),
        (QWEN, "", "<thin air", "", "<thin air"),
        (QWEN, "", "Yes <think>no</think>", "", "Yes <think>no</think>"),
        (QWEN, "", "<think>on and on </thi", "on and on </thi", ""),
        (QWEN, "", "<think></think>Yes", "", "Yes"),
        (QWEN, "", "", "", ""),
        (QWEN, OPEN, "hm\n\n\na </think> Yes", "hm\n\n\na", "Yes"),
        (QWEN, OPEN, "hm", "hm", ""),
        (QWEN, CLOSED, "<think>Yes</think>", "", "<think>Yes</think>"),
        (R1, "", "hm\n</think>\n\nYes", "hm", "Yes"),
        (R1, "", "<think>\nhm</think>Yes", "hm", "Yes"),
        (R1, OPEN, "<think>hm</think>Yes", "hm", "Yes"),
        (R1, "", " hm", "hm", ""),
        (R1, "", "<", "<", ""),
        (R1, CLOSED, " Yes", "", " Yes"),
    ],
)
def test_thoughts_and_answer(form, prompt, text, thought, said, sizes):
    events = told(form.parser(prompt), text, sizes)
    assert (thoughts(events), content(events)) == (thought, said)


@settings(max_examples=200, deadline=None)
@given(
    form=st.sampled_from([QWEN, R1]),
    prompt=st.sampled_from(["", OPEN, CLOSED]),
    parts=st.lists(
        st.sampled_from(["<think>", "</think>", "<thi", "</", " ", "\n", "hm", "<"]), max_size=15
    ),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_pieces_change_nothing_and_only_marks_are_lost(form, prompt, parts, sizes):
    text = "".join(parts)
    events = told(form.parser(prompt), text)
    assert told(form.parser(prompt), text, sizes) == events
    kept = squeezed(thoughts(events) + content(events))
    lost = len(squeezed(text)) - len(kept)
    assert lost in (0, len("<think>"), len("</think>"), len("<think></think>"))


def test_what_the_prompt_says_of_thinking():
    assert QWEN.thinks("")
    assert QWEN.thinks(OPEN)
    assert not QWEN.thinks(CLOSED)
