"""Masks against brute force over a tiny vocabulary, looking ahead, and where a text ends."""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_core.api import PlanRow, SamplingParams, SequenceStart, StructuredOutput
from rtp_core.errors import RequestError
from rtp_core.text.structured import masks as masks_module
from rtp_core.text.structured.constraint import Constraint, GrammarError
from rtp_core.text.structured.grammars import Grammars
from rtp_core.text.structured.masks import GrammarMasks

sys.path.insert(0, str(Path(__file__).parent))
from byte_vocabulary import EOS, VOCAB, byte_tokenizer

PADDED = VOCAB + 10


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def grammars(tokenizer):
    return Grammars(lambda: tokenizer, PADDED, (EOS,))


@pytest.fixture(scope="module")
def ids(tokenizer):
    return lambda text: tokenizer.encode(text, add_special_tokens=False, allow_special=False)


def start_of(structured, output=(), **sampling):
    params = SamplingParams(structured=structured, max_tokens=None, **sampling)
    return SequenceStart("s", params, 1, 0, (1, 2, *output), 2)


def constraint(grammars, structured, output=(), **sampling):
    start = start_of(structured, output, **sampling)
    return Constraint(grammars.matcher(structured), start, PADDED, frozenset({EOS}))


def allowed(row):
    bits = np.unpackbits(row.view(np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def prefixes(pattern, alphabet, longest):
    """Texts over the alphabet, up to a length, that a match can begin with; and full matches."""
    texts, layer = [""], [""]
    for _ in range(longest):
        layer = [text + char for text in layer for char in alphabet]
        texts += layer
    whole = {text for text in texts if re.fullmatch(pattern, text)}
    return {text[:end] for text in whole for end in range(len(text) + 1)}, whole


@pytest.mark.parametrize("pattern", ["a(b|c)a?", "(ab|ba){2}", "[abc]{1,3}", "a?b?c?"])
def test_masks_are_those_of_brute_force(grammars, ids, pattern):
    begins, whole = prefixes(pattern, "abc", 4)
    for text in sorted(begins):
        one = constraint(grammars, StructuredOutput("regex", pattern), ids(text))
        follow = {ids(char)[0] for char in "abc" if text + char in begins}
        if text in whole and not follow:
            assert one.complete
            continue
        (row,) = one.masks(())
        assert allowed(row) == follow | ({EOS} if text in whole else set())


def test_padding_of_the_vocabulary_is_never_allowed(grammars):
    one = constraint(grammars, StructuredOutput("regex", "(.|\n)*"))
    (row,) = one.masks(())
    assert max(allowed(row)) == EOS


@settings(max_examples=60, deadline=None)
@given(st.text("abx", max_size=6), st.text("ab", max_size=4))
def test_looking_ahead_is_walking_and_leaves_no_trace(grammars, ids, drafts, before):
    structured = StructuredOutput("regex", "[ab]{0,6}c")
    before = before[:4]
    one = constraint(grammars, structured, ids(before))
    found = one.masks(ids(drafts))
    again = one.masks(())
    assert np.array_equal(found[0], again[0])
    walker = constraint(grammars, structured, ids(before))
    for place, token in enumerate(ids(drafts)):
        (row,) = walker.masks(())
        assert np.array_equal(found[place], row)
        if token not in allowed(row):
            return
        walker.advance([token])
    assert np.array_equal(found[-1], walker.masks(())[0])


def test_past_the_end_of_the_text_nothing_is_barred_and_nothing_counts(grammars, ids):
    one = constraint(grammars, StructuredOutput("regex", "ab"))
    found = one.masks(ids("abaa"))
    assert [len(allowed(row)) for row in found] == [1, 1, PADDED, PADDED, PADDED]
    assert one.advance(ids("abzz")) == 2
    assert one.complete


def test_the_end_token_ends_the_text_where_it_may(grammars, ids):
    one = constraint(grammars, StructuredOutput("regex", "ab*"))
    assert allowed(one.masks(())[0]) == set(ids("a"))
    one.advance(ids("a"))
    assert allowed(one.masks(())[0]) == {*ids("b"), EOS}
    assert one.advance([EOS, 1]) == 1
    assert one.complete


def test_min_tokens_holds_the_end_back_unless_nothing_else_may_come(grammars, ids):
    one = constraint(grammars, StructuredOutput("regex", "a(b*|c)"), min_tokens=3)
    one.advance(ids("a"))
    found = one.masks(ids("bbb"))
    ends = [EOS in allowed(row) for row in found]
    assert ends == [False, False, True, True]
    held = constraint(
        grammars, StructuredOutput("regex", "aaa"), min_tokens=9, stop_token_ids=tuple(ids("a"))
    )
    assert allowed(held.masks(())[0]) == set(ids("a"))


def test_the_constraint_begins_behind_the_marker(grammars, ids):
    marker = tuple(ids("##"))
    one = constraint(grammars, StructuredOutput("regex", "ab"), structured_after=marker)
    assert len(allowed(one.masks(())[0])) == PADDED
    found = one.masks(ids("x##a"))
    assert [len(allowed(row)) for row in found] == [PADDED] * 3 + [1, 1]
    assert one.advance(ids("x#")) == 2
    assert len(allowed(one.masks(())[0])) == PADDED
    one.advance(ids("#"))
    assert allowed(one.masks(())[0]) == set(ids("a"))
    resumed = constraint(
        grammars, StructuredOutput("regex", "ab"), ids("x##a"), structured_after=marker
    )
    assert allowed(resumed.masks(())[0]) == set(ids("b"))


def test_a_token_that_may_not_come_is_an_error_not_a_crash(grammars, ids):
    with pytest.raises(GrammarError):
        constraint(grammars, StructuredOutput("regex", "ab")).advance(ids("x"))


# ---- many at once


class Slow:
    """Opens matchers when told to."""

    def __init__(self, grammars):
        self.grammars, self.gate = grammars, threading.Event()

    def matcher(self, structured):
        self.gate.wait(10)
        return self.grammars.matcher(structured)


def row(name, drafts=()):
    return PlanRow(name, [5, *drafts], 2, len(drafts), True, ([0],))


def test_a_slow_grammar_delays_its_own_row_only(grammars, monkeypatch):
    monkeypatch.setattr(masks_module, "PATIENCE_S", 0.001)
    slow = Slow(grammars)
    masks = GrammarMasks(slow, PADDED, frozenset({EOS}))
    masks.start(start_of(StructuredOutput("regex", "ab")))
    rows = [row("s"), row("other")]
    for _ in range(3):
        masks.begin(rows)
        found = masks.collect(rows)
        assert (found.ready, found.late, found.errors) == ({}, {"s"}, {})
    slow.gate.set()
    monkeypatch.setattr(masks_module, "PATIENCE_S", 5.0)
    masks.begin(rows)
    assert list(masks.collect(rows).ready) == ["s"]
    assert masks.counts.late == 3


def test_a_grammar_that_fails_ends_its_own_row_only(grammars, monkeypatch):
    monkeypatch.setattr(masks_module, "PATIENCE_S", 5.0)

    class Failing:
        def matcher(self, structured):
            if structured.text == "bad":
                raise RequestError("structured_outputs", "no")
            return grammars.matcher(structured)

    masks = GrammarMasks(Failing(), PADDED, frozenset({EOS}))
    masks.start(start_of(StructuredOutput("regex", "ab")))
    bad = start_of(StructuredOutput("regex", "bad"))
    masks.start(replace(bad, sequence_id="t"))
    rows = [row("s"), row("t")]
    masks.begin(rows)
    found = masks.collect(rows)
    assert list(found.ready) == ["s"]
    assert found.errors == {"t": "no"}
    masks.release("s")
    masks.release("t")
    assert masks.collect(rows) is None
