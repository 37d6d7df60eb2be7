"""Stop strings against a plain search, however the text arrives."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_core.text.stop_strings import StopStrings


def run(stops, chunks, *, include=False):
    """Texts let out, the match and the most characters held back."""
    finder, texts, held, given_chars = StopStrings(stops, include=include), [], 0, 0
    for chunk in chunks:
        result = finder.feed(chunk)
        texts.append(result.text)
        given_chars += len(chunk)
        if result.matched is not None:
            return "".join(texts), result.matched, held
        held = max(held, given_chars - len("".join(texts)))
    return "".join(texts) + finder.flush(), None, held


def expected(stops, text):
    """First stop to be completed, the longest of those completed together."""
    for end in range(1, len(text) + 1):
        done = [stop for stop in stops if text[:end].endswith(stop)]
        if done:
            stop = max(done, key=len)
            return text[: end - len(stop)], stop
    return text, None


@given(
    text=st.text(alphabet="abc", max_size=30),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=4),
    cuts=st.lists(st.integers(0, 30), max_size=8),
)
@settings(max_examples=400, deadline=None)
def test_any_chunking_gives_the_plain_search_and_bounded_hold_back(text, stops, cuts):
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    chunks = [text[a:b] for a, b in itertools.pairwise(borders)]
    shown, matched, held = run(stops, chunks)
    assert (shown, matched) == expected(stops, text)
    assert held <= max(map(len, stops), default=1) - 1


@pytest.mark.parametrize("include", [False, True])
def test_a_match_split_at_every_offset_is_found(include):
    text, stop = "before STOP after", "STOP"
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            chunks = [text[:first], text[first:second], text[second:]]
            shown, matched, _ = run([stop], chunks, include=include)
            assert matched == stop
            assert shown == ("before STOP" if include else "before ")


def test_text_that_cannot_begin_a_stop_string_is_not_held_back():
    finder = StopStrings(["###"])
    assert finder.feed("hello").text == "hello"
    assert finder.feed(" #").text == " "
    assert finder.feed("1").text == "#1"
    assert finder.flush() == ""


def test_a_match_completed_while_disarmed_does_not_count_later():
    finder = StopStrings(["b", "abc"])
    assert finder.feed("ab", armed=False).matched is None
    assert finder.feed("x").matched is None
    assert finder.feed("b").matched == "b"


def test_a_match_begun_while_disarmed_and_completed_later_counts():
    finder = StopStrings(["ab"])
    assert finder.feed("xa", armed=False).text == "x"
    result = finder.feed("b")
    assert (result.text, result.matched) == ("", "ab")


def test_without_stop_strings_text_passes_through():
    finder = StopStrings([])
    assert finder.feed("any text").text == "any text"
    assert finder.flush() == ""
