"""Many scripts through every kind of GGUF vocabulary: back to the same text, and to the ids of
transformers' own tokenizer classes."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from rtp_core.text.gguf_pretokenizers import IGNORES_MERGES, NORMALIZES, SPLITS
from rtp_core.text.gguf_tokenizer import write_tokenizer
from rtp_core.text.tokenizer import Tokenizer

TEXTS = json.loads((Path(__file__).parent / "data" / "multilingual.json").read_text())
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
NORMAL, UNKNOWN, CONTROL_KIND, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
RUNS = ["\n\n", "\t\t", "  ", "   ", "    "]


def byte_level_vocabulary():
    """Merges learned across word borders, so that every difference of a split shows."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 2, trainer)
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tokens, [tuple(pair) for pair in model["merges"]]


TOKENS, MERGES = byte_level_vocabulary()


def byte_level_metadata(pre):
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [*TOKENS, *CONTROL],
        "tokenizer.ggml.token_type": [NORMAL] * len(TOKENS) + [CONTROL_KIND] * len(CONTROL),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in MERGES],
        "tokenizer.ggml.eos_token_id": len(TOKENS),
        "tokenizer.ggml.add_bos_token": False,
    }


def piece_metadata(*, prefix):
    """SentencePiece's kind of vocabulary; without a prefix, Gemma's runs of white space too."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=900, limit_alphabet=400, show_progress=False)
    backend.train_from_iterator([*TEXTS, *RUNS[:2]], trainer)
    learned = sorted(backend.get_vocab(), key=backend.get_vocab().__getitem__)
    rows = [("<unk>", UNKNOWN, 0.0), ("<s>", CONTROL_KIND, 0.0), ("</s>", CONTROL_KIND, 0.0)]
    rows += [(f"<0x{byte:02X}>", BYTE, 0.0) for byte in range(256)]
    rows += [] if prefix else [(text, USER_DEFINED, 0.0) for text in RUNS]
    known = {text for text, _, _ in rows}
    rows += [(text, NORMAL, -float(n)) for n, text in enumerate(learned) if text not in known]
    tokens, kinds, scores = (list(column) for column in zip(*rows, strict=True))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.add_space_prefix": prefix,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


VOCABULARIES = {pre: byte_level_metadata(pre) for pre in SPLITS}
VOCABULARIES |= {"llama": piece_metadata(prefix=True), "gemma": piece_metadata(prefix=False)}


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """Tokenizers by the name of their vocabulary."""
    made = {}
    for name, metadata in VOCABULARIES.items():
        directory = tmp_path_factory.mktemp(name)
        write_tokenizer(metadata, directory)
        made[name] = Tokenizer.load(directory)
    return made


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False, allow_special=False)


def meant(name, text):
    return unicodedata.normalize("NFC", text) if name in NORMALIZES else text


@pytest.mark.parametrize("name", VOCABULARIES)
def test_texts_come_back_as_they_were(rebuilt, name):
    for text in TEXTS:
        assert rebuilt[name].decode(encode(rebuilt[name], text)) == meant(name, text)


@pytest.mark.parametrize("name", VOCABULARIES)
@given(text=st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back(rebuilt, name, text):
    assert rebuilt[name].decode(encode(rebuilt[name], text)) == meant(name, text)


def test_splits_give_different_ids(rebuilt):
    """Else the comparison below could not tell them apart."""
    kinds = ("default", "llama-bpe", "qwen2", "tekken", "smollm", "gpt-2")
    ids = {tuple(encode(rebuilt[kind], "".join(TEXTS))) for kind in kinds}
    assert len(ids) == len(kinds)


REFERENCES = ("gpt-2", "llama-bpe", "llama3", "pixtral", "smaug-bpe", "tekken", "qwen2")


def reference(name):
    """A tokenizer of transformers, built from the same vocabulary."""
    transformers = pytest.importorskip("transformers")
    mapping = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    metadata = VOCABULARIES[name]
    if name in NORMALIZES:
        vocab = {text: number for number, text in enumerate(TOKENS)}
        return transformers.Qwen2Tokenizer(vocab=vocab, merges=MERGES).backend_tokenizer
    values = {ours: metadata.get(f"tokenizer.{key}")
              for key, ours in mapping.GGUF_TOKENIZER_MAPPING["tokenizer"].items()}  # fmt: skip
    values = {key: value for key, value in values.items() if value is not None}
    backend, _ = mapping.convert_gguf_tokenizer("gemma2" if name == "gemma" else "llama", values)
    backend.model.ignore_merges = name in IGNORES_MERGES
    return backend


@pytest.mark.parametrize("name", REFERENCES)
def test_ids_are_those_of_transformers(rebuilt, name):
    theirs = reference(name)
    for text in TEXTS:
        assert encode(rebuilt[name], text) == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_pieces_are_those_of_transformers(rebuilt, name):
    """transformers leaves out the space before a text that begins with one; llama.cpp does not."""
    theirs = reference(name)
    for text in TEXTS:
        start = text.lstrip(" ") if name == "llama" else text
        assert encode(rebuilt[name], start) == theirs.encode(start, add_special_tokens=False).ids


@pytest.mark.model
def test_the_demo_model_reads_and_writes_every_script(demo_directory):
    tokenizer = Tokenizer.load(demo_directory)
    for text in TEXTS:
        assert tokenizer.decode(encode(tokenizer, text)) == text
