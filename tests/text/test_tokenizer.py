"""Ids, bytes and errors of tokenizers of every family."""

from __future__ import annotations

import json
import threading

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_core.errors import ModelError, RequestError
from rtp_core.text.tokenizer import Tokenizer

UNKNOWN = 0
"""Id of the unknown token in the families that have one, special but no control token."""
TEXTS = [
    "",
    "the fox",
    "The dog sleeps.\n\n1. foxes",
    "héllo 日本語 👩‍👩‍👧‍👦",
    "  a   b  ",
    "\t\t7\r\n",
]


def plain(tokenizer, text, **options):
    return tokenizer.encode(
        text, **{"add_special_tokens": False, "allow_special": False, **options}
    )


def special(tokenizer, text, **options):
    return tokenizer.encode(text, **{"add_special_tokens": False, "allow_special": True, **options})


def spelled(tokenizer):
    """Special tokens of a tokenizer by id."""
    ids = range(tokenizer.vocab_size)
    return {number: tokenizer.token_text(number) for number in ids if tokenizer.is_special(number)}


def test_a_special_token_in_text_is_one_only_when_allowed(any_tokenizer):
    for number, content in spelled(any_tokenizer).items():
        assert number in special(any_tokenizer, f"fox{content}fox")
        ids = plain(any_tokenizer, f"fox{content} the{content}")
        assert {one for one in ids if any_tokenizer.is_special(one)} <= {UNKNOWN}


@pytest.mark.parametrize("text", TEXTS)
def test_ordinary_text_has_the_same_ids_either_way(any_tokenizer, text):
    assert plain(any_tokenizer, text) == special(any_tokenizer, text)


@given(text=st.text(alphabet="<|im_end>art \nfoxé日😀s/", max_size=40))
@settings(max_examples=60, deadline=None)
def test_plain_byte_level_text_always_round_trips(byte_level, text):
    ids = plain(byte_level, text)
    assert not any(map(byte_level.is_special, ids))
    assert byte_level.decode(ids, skip_special_tokens=True) == text


def test_merges_that_spell_a_special_token_are_not_used_for_plain_text(make_backend):
    tokenizer = Tokenizer(make_backend["pieces"](extra_merges=[("<", "s"), ("<s", ">")]))
    assert plain(tokenizer, "<s>") != special(tokenizer, "<s>")
    assert not any(map(tokenizer.is_special, plain(tokenizer, "a<s>b")))
    assert tokenizer.decode(plain(tokenizer, "a<s>b")) == "a<s>b"


def test_a_vocabulary_that_takes_whole_words_does_not_take_special_ones(make_backend):
    backend = make_backend["byte_level"](special=["<|im_end|>", "END"], ignore_merges=True)
    tokenizer = Tokenizer(backend)
    assert special(tokenizer, "END") == [1]
    assert len(plain(tokenizer, "END")) == 3


def test_user_defined_tokens_stay_tokens_in_plain_text(make_backend):
    backend = make_backend["byte_level"]()
    backend.add_tokens([tokenizers.AddedToken("<think>", normalized=False, special=False)])
    tokenizer = Tokenizer(backend)
    number = backend.token_to_id("<think>")
    assert plain(tokenizer, "a<think>b<|im_end|>").count(number) == 1
    assert not tokenizer.is_special(number)
    assert tokenizer.decode([number], skip_special_tokens=True) == "<think>"


@pytest.mark.parametrize("allow_special", [True, False])
@pytest.mark.parametrize("text", ["\ud800", "fox \udc00 fox"])
def test_lone_surrogates_are_refused_naming_the_field(byte_level, text, allow_special):
    with pytest.raises(RequestError, match="surrogate") as caught:
        special(byte_level, text, allow_special=allow_special, param="messages")
    assert caught.value.param == "messages"
    with pytest.raises(RequestError):
        byte_level.encode_batch(["ok", text], add_special_tokens=True, allow_special=allow_special)


def test_what_is_not_text_is_refused(byte_level):
    with pytest.raises(RequestError, match="must be text"):
        special(byte_level, 7)


@pytest.mark.parametrize("allow_special", [True, False])
@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_a_batch_equals_its_texts_one_by_one(any_tokenizer, add_special_tokens, allow_special):
    options = {"add_special_tokens": add_special_tokens, "allow_special": allow_special}
    texts = [*TEXTS, "fox<|im_end|></s>"]
    batch = any_tokenizer.encode_batch(texts, **options)
    assert batch == [any_tokenizer.encode(text, **options) for text in texts]


def test_bos_comes_from_the_post_processor_also_in_front_of_plain_text(pieces):
    bos = special(pieces, "<s>")[0]
    bare = special(pieces, "the fox")
    for allow in (True, False):
        ids = pieces.encode("the fox", add_special_tokens=True, allow_special=allow)
        assert ids == [bos, *bare]
    assert pieces.encode("", add_special_tokens=True, allow_special=True) == [bos]


def test_the_config_can_switch_bos_off_but_not_on(make_backend, save):
    config = {"add_bos_token": False, "bos_token": {"content": "<s>"}}
    off = Tokenizer.load(save(make_backend["pieces"](), config=config))
    assert off.encode("a", add_special_tokens=True, allow_special=True) == special(off, "a")
    config = {"add_bos_token": True, "bos_token": "<|im_start|>"}
    on = Tokenizer.load(save(make_backend["byte_level"](), config=config, name="other"))
    assert on.encode("a", add_special_tokens=True, allow_special=True) == special(on, "a")


def test_training_time_truncation_and_padding_do_not_apply(make_backend, save):
    backend = make_backend["byte_level"]()
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    tokenizer = Tokenizer.load(save(backend))
    ids = special(tokenizer, "the quick brown fox jumps over the lazy dog")
    assert tokenizer.decode(ids) == "the quick brown fox jumps over the lazy dog"
    batch = tokenizer.encode_batch(["a", "a b c d"], add_special_tokens=True, allow_special=True)
    assert len(batch[0]) == 1


@pytest.mark.parametrize("where", ["config", "special_map", "decoder"])
def test_special_tokens_listed_only_in_the_configuration_are_special(make_backend, save, where):
    backend = make_backend["byte_level"](special=[])
    bare = json.loads(backend.to_str())
    bare["model"]["vocab"]["<|stop|>"] = len(bare["model"]["vocab"])
    backend = tokenizers.Tokenizer.from_str(json.dumps(bare))
    number = backend.token_to_id("<|stop|>")
    listed = {"eos_token": {"content": "<|stop|>"}}
    decoder = {"added_tokens_decoder": {str(number): {"content": "<|stop|>", "special": True}}}
    files = {
        "config": {"config": listed},
        "special_map": {"special_map": listed},
        "decoder": {"config": decoder},
    }
    tokenizer = Tokenizer.load(save(backend, **files[where]))
    assert tokenizer.is_special(number)
    assert special(tokenizer, "a<|stop|>")[-1] == number
    assert number not in plain(tokenizer, "a<|stop|>")
    assert tokenizer.decode([number]) == ""
    assert tokenizer.vocab_size == number + 1


def test_a_special_token_without_an_id_gets_none(make_backend, save):
    directory = save(make_backend["byte_level"](), config={"pad_token": "<|absent|>"})
    tokenizer = Tokenizer.load(directory)
    assert tokenizer.vocab_size == Tokenizer(make_backend["byte_level"]()).vocab_size
    assert tokenizer.decode(special(tokenizer, "<|absent|>")) == "<|absent|>"


def test_token_bytes_join_to_the_text_for_vocabularies_that_spell_bytes(byte_level, pieces):
    text = "the fox, héllo 日本語 👩‍👩‍👧‍👦!\n"
    ids = special(byte_level, text)
    assert b"".join(map(byte_level.token_bytes, ids)) == text.encode()
    ids = special(pieces, text)
    assert b"".join(map(pieces.token_bytes, ids)) == f" {text}".encode()
    assert pieces.token_bytes(3 + 0xAB) == b"\xab"
    assert pieces.token_text(3 + 0xAB) == "\ufffd"


def test_every_family_gives_bytes_for_special_and_unknown_ids(any_tokenizer):
    for number, content in spelled(any_tokenizer).items():
        assert any_tokenizer.token_bytes(number) == content.encode()
    for number in (-1, any_tokenizer.vocab_size, 2**40):
        assert any_tokenizer.token_bytes(number) == b""
        assert not any_tokenizer.is_special(number)


def test_decode_skips_special_tokens_on_request_and_ignores_padding_rows(byte_level):
    ids = special(byte_level, "fox<|im_end|>dog")
    assert byte_level.decode(ids) == "foxdog"
    assert byte_level.decode(ids, skip_special_tokens=False) == "fox<|im_end|>dog"
    assert byte_level.decode([*ids, byte_level.vocab_size + 5]) == "foxdog"


@pytest.mark.parametrize("number", [-1, 2**32, 2**70])
def test_decode_refuses_ids_that_cannot_be(byte_level, number):
    with pytest.raises(RequestError, match=f"between 0 and {byte_level.vocab_size - 1}"):
        byte_level.decode([1, number])


def test_threads_share_one_tokenizer(make_backend):
    tokenizer = Tokenizer(make_backend["byte_level"]())
    text = "The quick <|im_end|> fox 12345 " * 20
    expected = plain(Tokenizer(make_backend["byte_level"]()), text)
    results = []

    def work():
        for _ in range(5):
            ids = plain(tokenizer, text)
            results.append((ids, tokenizer.decode(ids), b"".join(map(tokenizer.token_bytes, ids))))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(expected, text, text.encode())] * 40


def test_a_missing_tokenizer_names_the_file_and_the_remedy(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing .*--tokenizer DIR"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ModelError, match=r"does not exist .*--tokenizer DIR"):
        Tokenizer.load(tmp_path / "nowhere")
    (tmp_path / "tokenizer.model").write_bytes(b"\n")
    with pytest.raises(ModelError, match=r"holds tokenizer\.model but no tokenizer\.json"):
        Tokenizer.load(tmp_path)


def _truncate(path):
    path.write_text(path.read_text()[:-300])


def _lfs(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")


DAMAGE = {
    "truncated": (_truncate, "truncated"),
    "empty": (lambda path: path.write_text(""), "no usable tokenizer"),
    "array": (lambda path: path.write_text("[]"), "no usable tokenizer"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "not UTF-8"),
    "lfs": (_lfs, "git lfs pull"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_tokenizer_is_a_model_error(make_backend, save, kind):
    directory = save(make_backend["byte_level"]())
    damage, message = DAMAGE[kind]
    damage(directory / "tokenizer.json")
    with pytest.raises(ModelError, match=message):
        Tokenizer.load(directory)


@pytest.mark.parametrize("content", ["{", "[]", '"text"', "[" * 100_000])
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_damaged_configuration_is_a_model_error(make_backend, save, name, content):
    directory = save(make_backend["byte_level"]())
    (directory / name).write_text(content)
    with pytest.raises(ModelError, match=name):
        Tokenizer.load(directory)
