"""Small tokenizers of every family, and the demo model's tokenizer where it can be had."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from rtp_core.errors import ModelError
from rtp_core.text.tokenizer import Tokenizer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "The quick brown fox jumps over the lazy dog. The dog sleeps, the fox jumps again.",
    "In 2024 there were 12345 foxes and 678 dogs;\n\n1. foxes\n2. dogs\n\t\tend    of list",
    "héllo wörld, naïve café — 日本語のテキスト 👩‍👩‍👧‍👦 😀 ok",
    "def f(x):\n    return x + 1  # plain code, plain text, user and assistant and system",
]


def byte_level_backend(special=tuple(SPECIAL), **model):
    """Byte-level BPE with digits apart, its control tokens first in the vocabulary."""
    backend = tokenizers.Tokenizer(models.BPE(**model))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def piece_backend(special=("<unk>", "<s>", "</s>"), extra_merges=(), prepend=True):
    """SentencePiece-style BPE with byte fallback, as Llama 2 has it."""
    words = ["▁the", "▁fox", "▁do", "g", "▁hello", "▁world", "é", "日", "▁"]
    vocab = {text: number for number, text in enumerate(special)}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    merges = []
    for char in "▁abcdefghijklmnopqrstuvwxyz0123456789<>/|_.,!é日\n":
        vocab.setdefault(char, len(vocab))
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocab:
                vocab[word[:end]] = len(vocab)
                merges.append((word[: end - 1], word[end - 1]))
    for left, right in extra_merges:
        vocab.setdefault(left, len(vocab))
        vocab.setdefault(right, len(vocab))
        vocab.setdefault(left + right, len(vocab))
        merges.append((left, right))
    backend = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    start = [normalizers.Prepend("▁")] if prepend else []
    backend.normalizer = normalizers.Sequence([*start, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prepend else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    backend.add_special_tokens([tokenizers.AddedToken(t, normalized=False) for t in special])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocab["<s>"])]
    )
    return backend


def metaspace_backend():
    """Unigram with Metaspace: its decoder looks at a token's place in the text."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def word_piece_backend():
    """WordPiece: pieces inside a word begin with ##."""
    words = ["[UNK]", "[CLS]", "fox", "jump", "##s", "##ing", "the", "##x", "f", "##o"]
    vocab = {text: number for number, text in enumerate(words)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=False)
    backend.add_special_tokens(["[UNK]", "[CLS]"])
    return backend


BACKENDS = {
    "byte_level": byte_level_backend,
    "pieces": piece_backend,
    "metaspace": metaspace_backend,
    "word_piece": word_piece_backend,
}


@pytest.fixture(scope="session", params=BACKENDS)
def any_tokenizer(request):
    """One tokenizer of each family."""
    return Tokenizer(BACKENDS[request.param]())


@pytest.fixture(scope="session")
def byte_level():
    return Tokenizer(byte_level_backend())


@pytest.fixture(scope="session")
def pieces():
    return Tokenizer(piece_backend())


@pytest.fixture(scope="session")
def make_backend():
    """The builders above by name, for tests that vary them."""
    return BACKENDS


@pytest.fixture
def save(tmp_path):
    """Write a backend and its configuration files as a model directory."""

    def write(backend, *, config=None, special_map=None, name="model"):
        directory = tmp_path / name
        directory.mkdir()
        backend.save(str(directory / "tokenizer.json"))
        if config is not None:
            (directory / "tokenizer_config.json").write_text(json.dumps(config))
        if special_map is not None:
            (directory / "special_tokens_map.json").write_text(json.dumps(special_map))
        return directory

    return write


@pytest.fixture(scope="session")
def demo_metadata():
    """GGUF metadata of the demo model; skips where it cannot be had."""
    from rtp_core.loading.demo import demo_model
    from rtp_core.loading.gguf import read_gguf

    try:
        path = demo_model(_cache_dir())
    except (ModelError, OSError) as error:
        pytest.skip(f"the demo model is not available: {error}")
    return read_gguf(path).metadata


@pytest.fixture(scope="session")
def demo_directory(demo_metadata, tmp_path_factory):
    """The demo model's tokenizer, rebuilt from its GGUF metadata."""
    from rtp_core.text.gguf_tokenizer import write_tokenizer

    directory = tmp_path_factory.mktemp("demo") / "tokenizer"
    write_tokenizer(demo_metadata, directory)
    return directory


def _cache_dir() -> Path:
    try:
        return importlib.import_module("rtp_core.config.environment").cache_dir()
    except ModuleNotFoundError:
        return Path.home() / ".cache" / "rtp"
