"""A slow reader gets merged events, in order, complete, and not without bound."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtp_core.api import FinishReason, Request, SamplingParams, TokenEvent, TokenLogprob
from rtp_core.engine.mailbox import MAX_UNREAD_BYTES, Mailbox, merge
from rtp_core.errors import CapacityError


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def mailbox(loop, n=1):
    return Mailbox(Request("r", (1,), SamplingParams(n=n)), loop)


def test_a_reader_that_keeps_up_gets_each_event_itself(loop):
    box = mailbox(loop)
    for number in range(3):
        event = TokenEvent("r", 0, (number,))
        box.put(event)
        assert box.take() is event
        assert box.take() is None


def test_a_slow_reader_gets_one_merged_event_a_choice(loop):
    box = mailbox(loop, n=2)
    for number in range(4):
        for choice in (0, 1):
            entry = TokenLogprob(number, -1.0)
            box.put(TokenEvent("r", choice, (number, 10 + choice), (entry, entry)))
    box.put(TokenEvent("r", 1, (), None, FinishReason.STOP, 7, 5))
    first, second = box.take(), box.take()
    assert first.token_ids == (0, 10, 1, 10, 2, 10, 3, 10)
    assert len(first.logprobs) == 8
    assert first.finish_reason is None
    assert (second.choice, second.token_ids) == (1, (0, 11, 1, 11, 2, 11, 3, 11))
    assert (second.finish_reason, second.stop_reason) == (FinishReason.STOP, 7)
    assert second.num_cached_tokens == 5
    assert box.take() is None
    assert not box.drained


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=60))
def test_whatever_the_pace_the_tokens_of_a_choice_are_the_same(script):
    loop = asyncio.new_event_loop()
    box = mailbox(loop, n=3)
    sent = {choice: [] for choice in range(3)}
    got = {choice: [] for choice in range(3)}

    def read():
        while (event := box.take()) is not None:
            got[event.choice].extend(event.token_ids)

    for token, (choice, reads) in enumerate(script):
        sent[choice].append(token)
        box.put(TokenEvent("r", choice, (token,)))
        if reads:
            read()
    read()
    loop.close()
    assert got == sent


def test_it_is_drained_when_every_choice_has_ended_and_was_read(loop):
    box = mailbox(loop, n=2)
    box.put(TokenEvent("r", 0, (1,), finish_reason=FinishReason.STOP))
    assert not box.ended
    box.put(TokenEvent("r", 1, (1,), finish_reason=FinishReason.STOP))
    assert box.ended
    assert not box.drained
    box.take(), box.take()
    assert box.drained


@pytest.mark.parametrize("width", [None, 20])
def test_an_unread_backlog_is_bounded_and_becomes_an_error(loop, width):
    box = mailbox(loop)
    top = tuple((token, -1.0) for token in range(width or 0))
    entry = None if width is None else (TokenLogprob(1, -1.0, top),)
    puts = 0
    while not box.deaf:
        box.put(TokenEvent("r", 0, (1,), entry))
        puts += 1
    assert puts < MAX_UNREAD_BYTES / 200
    box.put(TokenEvent("r", 0, (1,), entry))
    with pytest.raises(CapacityError, match="reader left 4 MiB of output unread"):
        box.take()


def test_reading_makes_room_again(loop):
    box = mailbox(loop)
    block = tuple(range(20_000))
    for _ in range(50):
        box.put(TokenEvent("r", 0, block))
        box.take()
    assert not box.deaf


def test_nothing_is_kept_for_a_closed_loop(loop):
    box = mailbox(loop)
    loop.close()
    box.put(TokenEvent("r", 0, (1,)))
    assert box.deaf
    assert box.take() is None


def test_merging_keeps_what_is_said_last():
    first = TokenEvent("r", 0, (1,), num_cached_tokens=1)
    last = TokenEvent("r", 0, (2,), finish_reason=FinishReason.ERROR, error="why")
    assert merge([first, last]) == TokenEvent(
        "r", 0, (1, 2), finish_reason=FinishReason.ERROR, error="why"
    )
