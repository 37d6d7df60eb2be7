"""Tokenizers rebuilt from GGUF metadata against their originals and against hand-made splits."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from rtp_core.errors import ModelError
from rtp_core.text.chat_template import ChatTemplate
from rtp_core.text.gguf_pretokenizers import pre_tokenizer
from rtp_core.text.gguf_tokenizer import write_tokenizer
from rtp_core.text.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def byte_level_metadata(backend, **changes):
    """What a converter writes for a byte-level BPE tokenizer."""
    vocab = backend.get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__)
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    kinds = {text: CONTROL if token.special else USER_DEFINED for text, token in added.items()}
    merges = json.loads(backend.to_str())["model"]["merges"]
    metadata = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": [kinds.get(text, NORMAL) for text in tokens],
        "merges": [" ".join(pair) for pair in merges],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_bos_token": False,
        **changes,
    }
    return prefixed(metadata)


def prefixed(metadata):
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items() if value is not None}


def piece_metadata(**changes):
    """A small SentencePiece-style vocabulary with one score a piece."""
    tokens = ["<unk>", "<s>", "</s>"]
    kinds = [UNKNOWN, CONTROL, CONTROL]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    kinds += [BYTE] * 256
    words = [
        "▁t",
        "he",
        "▁the",
        "▁f",
        "ox",
        "▁fox",
        "▁d",
        "og",
        "▁dog",
        "s>",
        "<s",
        "in",
        "ing",
        "fo",
    ]
    chars = list("▁thefoxdgsin<>/")
    tokens += [*words, *chars]
    kinds += [NORMAL] * (len(words) + len(chars))
    scores = (
        [0.0] * 259
        + [float(n) for n in range(len(words))]
        + [-1000.0 - n for n in range(len(chars))]
    )
    return prefixed(
        {
            "model": "llama",
            "pre": "default",
            "tokens": tokens,
            "token_type": kinds,
            "scores": scores,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "unknown_token_id": 0,
            **changes,
        }
    )


def rebuild(metadata, directory):
    write_tokenizer(metadata, directory)
    return Tokenizer.load(directory)


def encode(tokenizer, text, *, allow_special=True):
    return tokenizer.encode(text, add_special_tokens=False, allow_special=allow_special)


def test_a_rebuilt_byte_level_tokenizer_equals_its_original(make_backend, tmp_path):
    backend = make_backend["byte_level"]()
    rebuilt = rebuild(byte_level_metadata(backend), tmp_path)
    original = Tokenizer(backend)
    assert rebuilt.vocab_size == original.vocab_size
    texts = ["The fox\n\n1. jumps  12345", "<|im_start|>héllo<|im_end|>\t\t7", "日本語 😀"]
    for text in texts:
        assert encode(rebuilt, text) == encode(original, text)
        assert rebuilt.decode(encode(rebuilt, text)) == original.decode(encode(original, text))
    for number in range(rebuilt.vocab_size):
        assert rebuilt.is_special(number) == original.is_special(number)


def words(name, text):
    return [text[a:b] for _, (a, b) in pre_tokenizer(name).pre_tokenize_str(text)]


SPLITS = {
    "smollm": [
        "I",
        "'ll",
        " pay",
        " ",
        "1",
        "2",
        "3",
        "4",
        "$",
        "  ",
        " IT",
        "'",
        "S",
        "\n\n",
        "1",
        ".",
    ],
    "gpt-2": ["I", "'ll", " pay", " 1234", "$", "  ", " IT", "'", "S", "\n", "\n", "1", "."],
    "default": [
        "I",
        "'",
        "ll",
        " pay",
        " ",
        "123",
        "4",
        "$",
        "  ",
        " IT",
        "'",
        "S",
        "\n",
        "\n",
        "1",
        ".",
    ],
    "llama-bpe": ["I", "'ll", " pay", " ", "123", "4", "$", "  ", " IT", "'S", "\n\n", "1", "."],
    "qwen2": [
        "I",
        "'ll",
        " pay",
        " ",
        "1",
        "2",
        "3",
        "4",
        "$",
        "  ",
        " IT",
        "'S",
        "\n\n",
        "1",
        ".",
    ],
}


@pytest.mark.parametrize("name", SPLITS)
def test_each_split_cuts_words_digits_and_white_space_its_way(name):
    text = "I'll pay 1234$   IT'S\n\n1."
    assert words(name, text) == SPLITS[name]


@given(text=st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_split_loses_a_character(text):
    spell = ByteLevel(add_prefix_space=False, use_regex=False)
    expected = "".join(word for word, _ in spell.pre_tokenize_str(text))
    for name in SPLITS:
        assert "".join(word for word, _ in pre_tokenizer(name).pre_tokenize_str(text)) == expected


def test_llama_3_takes_whole_words_and_begins_with_bos_unless_told_otherwise(
    make_backend, tmp_path
):
    backend = make_backend["byte_level"]()
    tokens = byte_level_metadata(backend)["tokenizer.ggml.tokens"]
    changes = {"pre": "llama-bpe", "add_bos_token": None, "tokens": [*tokens, "zzzz"]}
    metadata = byte_level_metadata(backend, **changes)
    metadata["tokenizer.ggml.token_type"].append(NORMAL)
    rebuilt = rebuild(metadata, tmp_path / "on")
    ids = rebuilt.encode("zzzz", add_special_tokens=True, allow_special=True)
    assert ids == [1, len(tokens)]
    metadata["tokenizer.ggml.add_bos_token"] = False
    rebuilt = rebuild(metadata, tmp_path / "off")
    assert rebuilt.encode("zzzz", add_special_tokens=True, allow_special=True) == [len(tokens)]


def test_qwen_texts_are_composed_first(make_backend, tmp_path):
    rebuilt = rebuild(byte_level_metadata(make_backend["byte_level"](), pre="qwen2"), tmp_path)
    assert encode(rebuilt, "he\u0301llo") == encode(rebuilt, "héllo")


def test_eos_is_added_when_asked_for(make_backend, tmp_path):
    backend = make_backend["byte_level"]()
    changes = {"add_bos_token": True, "add_eos_token": True}
    rebuilt = rebuild(byte_level_metadata(backend, **changes), tmp_path)
    ids = rebuilt.encode("fox", add_special_tokens=True, allow_special=True)
    assert ids == [1, *encode(rebuilt, "fox"), 2]


def test_user_defined_tokens_are_whole_but_not_special(make_backend, tmp_path):
    backend = make_backend["byte_level"]()
    backend.add_tokens(["<tool call>"])
    rebuilt = rebuild(byte_level_metadata(backend), tmp_path)
    number = backend.token_to_id("<tool call>")
    assert encode(rebuilt, "a<tool call>b", allow_special=False).count(number) == 1
    assert not rebuilt.is_special(number)


def by_score(metadata, text):
    """SentencePiece's own rule: merge the adjacent pair whose piece scores best, leftmost."""
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds, scores = metadata["tokenizer.ggml.token_type"], metadata["tokenizer.ggml.scores"]
    pieces = {t: s for t, k, s in zip(tokens, kinds, scores, strict=True) if k == NORMAL}
    symbols = list(("▁" + text if text else "").replace(" ", "▁"))
    while True:
        pairs = [
            (-pieces[a + b], at)
            for at, (a, b) in enumerate(itertools.pairwise(symbols))
            if a + b in pieces
        ]
        if not pairs:
            break
        at = min(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    ids = []
    for symbol in symbols:
        if symbol in pieces:
            ids.append(tokens.index(symbol))
        else:
            ids += [3 + byte for byte in symbol.encode()]
    return ids


@pytest.fixture(scope="module")
def rebuilt_pieces(tmp_path_factory):
    return rebuild(piece_metadata(), tmp_path_factory.mktemp("pieces"))


@given(text=st.text(alphabet="thefoxdgsin<>/ é😀", max_size=25))
@settings(max_examples=200, deadline=None)
def test_sentencepiece_merges_follow_the_scores(rebuilt_pieces, text):
    ids = encode(rebuilt_pieces, text, allow_special=False)
    assert ids == by_score(piece_metadata(), text)
    assert rebuilt_pieces.decode(ids) == text


def test_sentencepiece_texts_begin_with_bos_and_spellings_stay_text(rebuilt_pieces):
    ids = rebuilt_pieces.encode("the fox", add_special_tokens=True, allow_special=True)
    assert ids == [1, *encode(rebuilt_pieces, "the fox")]
    assert encode(rebuilt_pieces, "<s>the")[0] == 1
    assert 1 not in encode(rebuilt_pieces, "<s>the", allow_special=False)


def test_the_space_in_front_can_be_switched_off(tmp_path):
    rebuilt = rebuild(piece_metadata(add_space_prefix=False), tmp_path)
    ids = encode(rebuilt, "the the")
    assert [rebuilt.token_text(number) for number in ids] == ["t", "he", " the"]
    assert rebuilt.decode(encode(rebuilt, " the")) == " the"


def test_templates_and_roles_reach_the_configuration(make_backend, tmp_path):
    metadata = byte_level_metadata(make_backend["byte_level"](), padding_token_id=2)
    metadata["tokenizer.chat_template"] = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}"
    write_tokenizer(metadata, tmp_path)
    template = ChatTemplate.load(tmp_path)
    assert template.render([], add_generation_prompt=False) == (
        "<|im_start|>|<|im_end|>|<|im_end|>"
    )
    metadata["tokenizer.chat_template.tool_use"] = "tools"
    write_tokenizer(metadata, tmp_path)
    template = ChatTemplate.load(tmp_path)
    assert template.render([], add_generation_prompt=False, tools=[{}]) == "tools"


BROKEN = {
    "model": ({"model": "rwkv"}, r"tokenizer\.ggml\.model 'rwkv'"),
    "no_model": ({"model": None}, r"tokenizer\.ggml\.model 'None'"),
    "pre": ({"pre": "kimi-k2"}, r"tokenizer\.ggml\.pre 'kimi-k2'"),
    "no_tokens": ({"tokens": None}, r"lack tokenizer\.ggml\.tokens"),
    "no_merges": ({"merges": None}, r"lack tokenizer\.ggml\.merges"),
    "odd_merge": ({"merges": ["abc"]}, "no merge of two tokens"),
    "foreign_merge": ({"merges": ["q q9"]}, "no usable tokenizer"),
    "types": ({"token_type": [1, 1]}, "but 2 token types"),
    "repeated": ({"tokens": ["a"] * 3, "token_type": [1] * 3}, "repetitions"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_rebuilt_is_refused_with_the_remedy(make_backend, tmp_path, kind):
    changes, message = BROKEN[kind]
    metadata = byte_level_metadata(make_backend["byte_level"](), **changes)
    with pytest.raises(ModelError, match=message) as caught:
        write_tokenizer(metadata, tmp_path / "out")
    assert "--tokenizer DIR" in (caught.value.remedy or "")
    assert not (tmp_path / "out").exists()


def test_sentencepiece_without_scores_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.ggml\.scores"):
        write_tokenizer(piece_metadata(scores=None), tmp_path)


def test_many_writers_leave_one_whole_tokenizer_and_no_scratch_files(make_backend, tmp_path):
    metadata = byte_level_metadata(make_backend["byte_level"]())
    directory = tmp_path / "shared"
    failures = []

    def write_and_read():
        try:
            for _ in range(random.randint(2, 4)):
                write_tokenizer(metadata, directory)
                Tokenizer.load(directory)
        except ModelError as error:
            failures.append(error)

    threads = [threading.Thread(target=write_and_read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["tokenizer.json", "tokenizer_config.json"]


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 400),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.one_of(st.booleans(), st.integers(-3, 9), st.floats(), st.text(max_size=3))),
)


@pytest.mark.parametrize("kind", ["byte_level", "pieces"])
@given(data=st.data())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_odd_values_are_refused_or_make_a_tokenizer(make_backend, tmp_path, kind, data):
    backend = make_backend["byte_level"]
    sound = piece_metadata() if kind == "pieces" else byte_level_metadata(backend())
    keys = {*sound, "tokenizer.ggml.scores", "tokenizer.ggml.add_eos_token"}
    keys |= {"tokenizer.ggml.add_space_prefix", "tokenizer.chat_template"}
    odd = data.draw(st.dictionaries(st.sampled_from(sorted(keys)), ODD, min_size=1, max_size=2))
    metadata = {key: one for key, one in {**sound, **odd}.items() if one is not None}
    with contextlib.suppress(ModelError):
        rebuild(metadata, tmp_path)
