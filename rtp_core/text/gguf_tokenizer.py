"""tokenizer.json and tokenizer_config.json from the metadata of a GGUF file.

Keys and token types are those of the GGUF specification; what a missing key means, and the
splits behind ``tokenizer.ggml.pre``, follow llama.cpp, which defines the format.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, processors

from rtp_core.errors import ModelError
from rtp_core.text.gguf_pretokenizers import IGNORES_MERGES, NORMALIZES, SPLITS, pre_tokenizer
from rtp_core.text.gguf_vocabulary import (
    BYTE,
    CONTROL,
    KEY,
    NORMAL,
    REMEDY,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
)
from rtp_core.text.tokenizer_files import CONFIG, TOKENIZER

WRITER_VERSION = 1
"""Raised when the files written for equal metadata change; caches key on it."""

_SPACE = "\u2581"
_ROLES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}


def write_tokenizer(metadata: Mapping[str, Any], directory: Path) -> None:
    """Write both files into `directory`, each whole or not at all, tokenizer.json last.

    Several processes may do so at once. Raises ModelError when the metadata describe a
    tokenizer that cannot be rebuilt faithfully.
    """
    vocabulary = Vocabulary(metadata)
    try:
        backend = _build(vocabulary)
    except ModelError:
        raise
    except Exception as error:  # the library raises nothing more specific
        raise ModelError(
            f"the GGUF metadata hold no usable tokenizer: {error}", remedy=REMEDY
        ) from error
    directory.mkdir(parents=True, exist_ok=True)
    config = json.dumps(_config(vocabulary), ensure_ascii=False, indent=1)
    _write_atomically(directory / CONFIG, config)
    _write_atomically(directory / TOKENIZER, backend.to_str())


def _build(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    if vocabulary.model == "gpt2":
        backend = _byte_level(vocabulary)
    elif vocabulary.model == "llama":
        backend = _pieces(vocabulary)
    else:
        raise ModelError(
            f"{KEY}model {vocabulary.model!r} is not supported (gpt2 and llama are)",
            remedy=REMEDY,
        )
    _add_tokens(backend, vocabulary)
    _add_borders(backend, vocabulary)
    return backend


def _byte_level(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    splits = pre_tokenizer(vocabulary.pre)
    if splits is None:
        raise ModelError(
            f"{KEY}pre {vocabulary.pre!r} is not supported ({', '.join(SPLITS)} are)",
            remedy=REMEDY,
        )
    merges = [_pair(text) for text in vocabulary.merges()]
    model = models.BPE(
        vocab=vocabulary.ids, merges=merges, ignore_merges=vocabulary.pre in IGNORES_MERGES
    )
    backend = tokenizers.Tokenizer(model)
    if vocabulary.pre in NORMALIZES:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = splits
    backend.decoder = decoders.ByteLevel()
    return backend


def _pair(merge: str) -> tuple[str, str]:
    """Two tokens with a space between; a token may begin with a space but hold no other."""
    at = merge.find(" ", 1)
    if at < 0:
        raise ModelError(f"GGUF metadata: {merge!r} is no merge of two tokens", remedy=REMEDY)
    return merge[:at], merge[at + 1 :]


def _pieces(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    """SentencePiece's BPE merges the pair whose piece scores best; as ranked merges."""
    unknown = vocabulary.role("unknown")
    model = models.BPE(
        vocab=vocabulary.ids,
        merges=_merges_by_score(vocabulary),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=BYTE in vocabulary.kinds,
    )
    backend = tokenizers.Tokenizer(model)
    prefixed = vocabulary.flag("add_space_prefix", True)
    spaces = normalizers.Replace(" ", _SPACE)
    start = [normalizers.Prepend(_SPACE)] if prefixed else []
    backend.normalizer = normalizers.Sequence([*start, spaces])
    strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def _merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every split of a piece into two pieces: best piece first, of equals the first in the file,
    then the longer left half."""
    scores = vocabulary.scores()
    pieces = {
        text: scores[number]
        for number, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind == NORMAL
    }
    ranked = [
        (-score, vocabulary.ids[text], -len(left), left, right)
        for text, score in pieces.items()
        for left, right in _halves(text)
        if left in pieces and right in pieces
    ]
    return [(left, right) for _, _, _, left, right in sorted(ranked)]


def _halves(text: str) -> Iterator[tuple[str, str]]:
    return ((text[:at], text[at:]) for at in range(1, len(text)))


def _add_tokens(backend: tokenizers.Tokenizer, vocabulary: Vocabulary) -> None:
    """Control tokens are special; user-defined ones are matched whole but are text."""
    added = [
        tokenizers.AddedToken(text, normalized=False, special=kind != USER_DEFINED)
        for text, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    ]
    backend.add_tokens(added)


def _add_borders(backend: tokenizers.Tokenizer, vocabulary: Vocabulary) -> None:
    start = vocabulary.role("bos") if vocabulary.adds("bos") else None
    end = vocabulary.role("eos") if vocabulary.adds("eos") else None
    used = [text for text in (start, end) if text is not None]
    if used:
        backend.post_processor = processors.TemplateProcessing(
            single=[text for text in (start, "$A", end) if text is not None],
            special_tokens=[(text, vocabulary.ids[text]) for text in dict.fromkeys(used)],
        )


def _config(vocabulary: Vocabulary) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": vocabulary.adds("bos"),
        "add_eos_token": vocabulary.adds("eos"),
    }
    for gguf_name, name in _ROLES.items():
        text = vocabulary.role(gguf_name)
        if text is not None:
            config[f"{name}_token"] = text
    templates = vocabulary.chat_templates()
    if templates.keys() == {"default"}:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [
            {"name": name, "template": text} for name, text in templates.items()
        ]
    return config


def _write_atomically(path: Path, text: str) -> None:
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
