"""The 8-gram rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtp_core.training.loops import GRAM, MOST_OFTEN, loop_free_length

tokens = st.lists(st.integers(0, 2), max_size=80)


@given(tokens)
def test_what_is_kept_has_no_run_too_often_and_one_more_token_would(ids):
    length = loop_free_length(ids)
    assert most_often(ids[:length]) <= MOST_OFTEN
    if length < len(ids):
        assert most_often(ids[: length + GRAM]) == MOST_OFTEN + 1


def most_often(ids):
    grams = [tuple(ids[at : at + GRAM]) for at in range(len(ids) - GRAM + 1)]
    return max((grams.count(one) for one in grams), default=0)


def test_a_text_that_repeats_a_sentence_twice_is_whole_and_thrice_is_cut():
    sentence = list(range(10))
    assert loop_free_length(sentence * 2) == 20
    assert loop_free_length(sentence * 3) == 20
