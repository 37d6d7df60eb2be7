"""Token events to what a client sees: cut at stops, nothing lost, nothing after the end."""

from __future__ import annotations

import itertools

import pytest

from rtp_core.api import FinishReason, SamplingParams, TokenEvent, TokenLogprob
from rtp_core.text.output import TextAssembler


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False, allow_special=True)


def events_of(ids, sizes, finish=FinishReason.LENGTH, stop_reason=None):
    """Events of the given sizes, the last one carrying the end."""
    events, at = [], 0
    for size in itertools.cycle(sizes):
        part = tuple(ids[at : at + size])
        at += size
        last = at >= len(ids)
        events.append(
            TokenEvent(
                "r",
                0,
                part,
                tuple(TokenLogprob(token, -1.0) for token in part),
                finish if last else None,
                stop_reason if last else None,
            )
        )
        if last:
            return events


def collect(tokenizer, ids, sizes=(1,), finish=FinishReason.LENGTH, stop_reason=None, **sampling):
    """The whole output: text, ids, the last delta."""
    assembler = TextAssembler(tokenizer, SamplingParams(**sampling), encode(tokenizer, "the"))
    deltas = [assembler.feed(event) for event in events_of(ids, sizes, finish, stop_reason)]
    ended = [delta for delta in deltas if delta.finish_reason is not None]
    assert len(ended) == 1
    assert not any(delta.text or delta.token_ids for delta in deltas[deltas.index(ended[0]) + 1 :])
    token_ids = [token for delta in deltas for token in delta.token_ids]
    logprobs = [entry for delta in deltas for entry in delta.logprobs or ()]
    assert [entry.token_id for entry in logprobs] == token_ids
    return "".join(delta.text for delta in deltas), token_ids, ended[0]


TEXT = "The fox jumps 😀 over the lazy dog. STOP and more"


@pytest.mark.parametrize("sizes", [(1,), (3,), (1, 4, 2), (100,)])
def test_without_stops_everything_arrives(byte_level, sizes):
    ids = encode(byte_level, TEXT)
    text, token_ids, end = collect(byte_level, ids, sizes)
    assert (text, token_ids) == (TEXT, ids)
    assert (end.finish_reason, end.stop_reason) == (FinishReason.LENGTH, None)


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("sizes", [(1,), (3,), (1, 4, 2), (100,)])
@pytest.mark.parametrize("stop", ["STOP", "😀", "dog. S", "x jumps 😀 o", " "])
def test_a_stop_string_ends_text_ids_and_logprobs_alike_for_every_chunking(
    byte_level, sizes, stop, include
):
    ids = encode(byte_level, TEXT)
    text, token_ids, end = collect(
        byte_level, ids, sizes, stop=(stop,), include_stop_str_in_output=include
    )
    at = TEXT.index(stop)
    assert text == TEXT[: at + len(stop) * include]
    assert (end.finish_reason, end.stop_reason) == (FinishReason.STOP, stop)
    assert token_ids == ids[: len(token_ids)]
    assert stop in byte_level.decode(token_ids)
    assert stop not in byte_level.decode(token_ids[:-1])


@pytest.mark.parametrize("cut", range(1, 5))
@pytest.mark.parametrize("finish", [FinishReason.LENGTH, FinishReason.ABORT, FinishReason.ERROR])
def test_text_held_back_is_flushed_at_any_other_end(byte_level, cut, finish):
    stop = "STOP"
    ids = encode(byte_level, f"fox {stop[:cut]}")
    text, _, end = collect(byte_level, ids, finish=finish, stop=("STOP!",))
    assert text == f"fox {stop[:cut]}"
    assert end.finish_reason is finish


def test_an_unfinished_character_is_shown_at_the_end(byte_level):
    ids = encode(byte_level, "fox 🚀")[:-1]
    assert collect(byte_level, ids)[0] == "fox \ufffd"


def test_an_end_without_tokens_flushes(byte_level):
    assembler = TextAssembler(byte_level, SamplingParams(stop=("ab",)), [])
    first = assembler.feed(TokenEvent("r", 0, tuple(encode(byte_level, "xa"))))
    last = assembler.feed(TokenEvent("r", 0, (), finish_reason=FinishReason.ABORT))
    assert (first.text, last.text, last.token_ids) == ("x", "a", ())


def test_min_tokens_postpones_stop_strings(byte_level):
    ids = encode(byte_level, "a b a b a b")
    stops_at = [n for n in range(1, len(ids) + 1) if byte_level.decode(ids[:n]).endswith("b")]
    first, second = stops_at[:2]
    for least, expected in ((first, first), (first + 1, second), (second, second)):
        _, token_ids, end = collect(byte_level, ids, stop=("b",), min_tokens=least, max_tokens=99)
        assert len(token_ids) == expected
        assert end.stop_reason == "b"


def test_the_token_that_stopped_the_engine_has_no_text_but_counts(byte_level):
    eos = encode(byte_level, "<|im_end|>")[0]
    ids = [*encode(byte_level, "fox"), eos]
    for skip in (True, False):
        text, token_ids, end = collect(
            byte_level, ids, (10,), FinishReason.STOP, eos, skip_special_tokens=skip
        )
        assert (text, token_ids) == ("fox", ids)
        assert (end.finish_reason, end.stop_reason) == (FinishReason.STOP, eos)
    text, _, _ = collect(
        byte_level,
        ids,
        (10,),
        FinishReason.STOP,
        eos,
        skip_special_tokens=False,
        include_stop_str_in_output=True,
    )
    assert text == "fox<|im_end|>"


def test_a_stop_string_wins_over_the_end_of_the_same_event(byte_level):
    eos = encode(byte_level, "<|im_end|>")[0]
    ids = [*encode(byte_level, "fox END"), eos]
    text, token_ids, end = collect(byte_level, ids, (50,), FinishReason.STOP, eos, stop=("END",))
    assert (text, end.stop_reason) == ("fox ", "END")
    assert token_ids == ids[:-1]


def test_logprobs_are_absent_when_the_event_has_none(byte_level):
    assembler = TextAssembler(byte_level, SamplingParams(), [])
    assert assembler.feed(TokenEvent("r", 0, (300,))).logprobs is None
