"""Pieces of text joined are the text, and every piece is whole characters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_core.text.detokenizer import make_detokenizer
from rtp_core.text.tokenizer import Tokenizer

FAMILY = "👩‍👩‍👧‍👦 ok"


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False, allow_special=True)


def pieces_of(tokenizer, ids, sizes=(1,), **options):
    """Texts of successive pushes whose sizes cycle through `sizes`, then the rest."""
    detokenizer = make_detokenizer(tokenizer, **options)
    texts, at, turn = [], 0, 0
    while at < len(ids):
        size = sizes[turn % len(sizes)]
        texts.append(detokenizer.push(ids[at : at + size]))
        at, turn = at + size, turn + 1
    return [*texts, detokenizer.finish()]


@given(
    ids=st.lists(st.integers(0, 425), max_size=60),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    skip=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_byte_level_pieces_join_to_the_whole_decoding(byte_level, ids, sizes, skip):
    joined = "".join(pieces_of(byte_level, ids, sizes, skip_special_tokens=skip))
    assert joined == byte_level.decode(ids, skip_special_tokens=skip)


@given(text=st.text(max_size=30), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_text_of_every_family_survives(byte_level, pieces, text, sizes):
    for tokenizer in (byte_level, pieces):
        ids = encode(tokenizer, text)
        assert "".join(pieces_of(tokenizer, ids, sizes)) == tokenizer.decode(ids)


@pytest.mark.parametrize("sizes", [(1,), (2, 3), (100,)])
@pytest.mark.parametrize("text", ["The fox  jumps over the dogs.", "the fox jumps the foxing"])
def test_decoders_that_look_at_neighbours_lose_no_space(any_tokenizer, text, sizes):
    ids = encode(any_tokenizer, text)
    assert "".join(pieces_of(any_tokenizer, ids, sizes)) == any_tokenizer.decode(ids)


def test_no_piece_shows_half_a_character(byte_level, pieces):
    for tokenizer in (byte_level, pieces):
        texts = pieces_of(tokenizer, encode(tokenizer, FAMILY))
        assert "".join(texts) == FAMILY
        assert not any("\ufffd" in text for text in texts)


def test_a_genuine_replacement_character_comes_at_once(byte_level):
    ids = encode(byte_level, "a\ufffdb")
    texts = pieces_of(byte_level, ids)
    assert "".join(texts) == "a\ufffdb"
    assert texts[len(ids) - 2].endswith("\ufffd")


def test_an_unfinished_character_waits_and_is_flushed(byte_level):
    ids = encode(byte_level, "a😀")[:-1]
    texts = pieces_of(byte_level, ids)
    assert "".join(texts[:-1]) == "a"
    assert texts[-1] == "\ufffd"


def test_invalid_bytes_do_not_hold_up_what_follows(byte_level):
    lead = encode(byte_level, "😀")[0]
    texts = pieces_of(byte_level, [lead, *encode(byte_level, "fox")])
    assert texts[-1] == ""
    assert "".join(texts) == "\ufffdfox"


def test_special_tokens_are_skipped_or_shown(any_tokenizer):
    special = next(n for n in range(any_tokenizer.vocab_size) if any_tokenizer.is_special(n))
    ids = [*encode(any_tokenizer, "fox"), special, *encode(any_tokenizer, "the fox")]
    for skip in (True, False):
        joined = "".join(pieces_of(any_tokenizer, ids, skip_special_tokens=skip))
        assert joined == any_tokenizer.decode(ids, skip_special_tokens=skip)
        assert (any_tokenizer.token_text(special) in joined) is not skip


def test_the_first_space_stays_when_the_output_continues_a_text(pieces):
    ids = encode(pieces, "hello world")
    prompt = encode(pieces, "the fox")
    bos = encode(pieces, "<s>")
    assert "".join(pieces_of(pieces, ids)) == "hello world"
    assert "".join(pieces_of(pieces, ids, prompt_token_ids=bos)) == "hello world"
    assert "".join(pieces_of(pieces, ids, prompt_token_ids=[*bos, *prompt])) == " hello world"


def test_a_window_detokenizer_continues_its_prompt(make_metaspace):
    tokenizer = make_metaspace
    prompt, ids = encode(tokenizer, "The fox"), encode(tokenizer, "jumps over the dog")
    whole = tokenizer.decode([*prompt, *ids])
    joined = "".join(pieces_of(tokenizer, ids, prompt_token_ids=prompt))
    assert tokenizer.decode(prompt) + joined == whole


class _Mumbling:
    """A tokenizer whose text always looks unfinished; counts the ids it must decode."""

    byte_rule = None
    special_ids = frozenset()

    def __init__(self):
        self.work = 0

    def decode(self, ids, *, skip_special_tokens):
        self.work += len(ids)
        return "\ufffd" * len(ids)


def test_text_that_never_looks_finished_costs_constant_work_a_token():
    tokenizer = _Mumbling()
    texts = pieces_of(tokenizer, list(range(1000)))
    assert "".join(texts) == "\ufffd" * 1000
    assert tokenizer.work < 40_000


@pytest.fixture(scope="module")
def make_metaspace(make_backend):
    return Tokenizer(make_backend["metaspace"]())
