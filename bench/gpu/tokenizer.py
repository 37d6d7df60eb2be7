"""A tokenizer.json as large as real ones, so that a start reads what a real start reads."""

from __future__ import annotations

import itertools
import string
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Byte-level BPE whose merges make every word of two and three letters; at most 143,568 ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = list(alphabet)
    for length in (2, 3):
        words += map("".join, itertools.product(string.ascii_letters, repeat=length))
    words = words[:vocab_size]
    merges = [(word[:-1], word[-1]) for word in words[len(alphabet) :]]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
