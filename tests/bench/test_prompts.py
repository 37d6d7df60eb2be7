"""Datasets: each form is read, each wrong line is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtp_core.bench.prompts import Ask, Lengths, random_prompts, read_dataset, read_lines
from rtp_core.errors import ConfigError


def test_each_form_of_a_request_is_read():
    said = [{"role": "user", "content": "hi"}]
    lines = [{"prompt": "a"}, {"prompt": [1, 2], "output_len": 3}, {"messages": said, "more": 1}]
    found = list(read_lines([json.dumps(one).encode() for one in lines], 9))
    assert found == [Ask("a", None, 9), Ask((1, 2), None, 3), Ask(None, (said[0],), 9)]


@pytest.mark.parametrize(
    "bad",
    [
        b"{", b"[]", b"{}", b'{"prompt": ""}', b'{"prompt": []}', b'{"prompt": [true]}',
        b'{"prompt": [-1]}', b'{"prompt": 5}', b'{"prompt": "a", "messages": []}',
        b'{"messages": []}', b'{"messages": ["a"]}', b'{"prompt": "a", "output_len": 0}',
        b'{"prompt": "a", "output_len": "5"}', b"\xff",
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(bad):
    with pytest.raises(ConfigError, match="line 2"):
        list(read_lines([b'{"prompt": "a"}', bad], 1))


def test_a_dataset_that_is_too_short_says_how_long_it_is(tmp_path):
    path = tmp_path / "two.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b"}\n')
    assert len(read_dataset(path, 2, 5)) == 2
    with pytest.raises(ConfigError, match="--num-prompts 2"):
        read_dataset(path, 3, 5)


def test_random_prompts_repeat_with_their_seed_and_share_no_prefix():
    one = random_prompts(8, 16, 50_000, seed=3)
    assert one == random_prompts(8, 16, 50_000, seed=3)
    assert one != random_prompts(8, 16, 50_000, seed=4)
    assert len({prompt[:4] for prompt in one}) == 8


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0, 0.999), st.integers(0, 9))
def test_lengths_are_drawn_from_their_range_and_repeat(input_len, output_len, ratio, seed):
    lengths = Lengths(input_len, output_len, ratio, 5)
    drawn = lengths.draw(50, seed)
    assert drawn == lengths.draw(50, seed)
    most_in, most_out = lengths.longest
    for tokens, out in drawn:
        assert max(1, int(input_len * (1 - ratio))) <= tokens <= most_in - 5
        assert max(1, int(output_len * (1 - ratio))) <= out <= most_out


def test_without_a_ratio_all_lengths_are_the_same():
    assert set(Lengths(7, 3).draw(20, 1)) == {(7, 3)}
    assert Lengths(7, 3).longest == (7, 3)
