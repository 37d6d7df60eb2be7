"""How byte-level vocabularies split text into words, by llama.cpp's names for the splits."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split
from tokenizers.pre_tokenizers import Sequence as Steps

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEFAULT = (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", r"[0-9]{3}")
"""What llama.cpp applies, one after the other, when a file does not name its split."""

_PATTERNS: dict[str, Sequence[str]] = {
    "default": _DEFAULT,
    "llama-bpe": (_LLAMA3,),
    "llama3": (_LLAMA3,),
    "llama-v3": (_LLAMA3,),
    "pixtral": (_LLAMA3,),
    "smaug-bpe": (_LLAMA3,),
    "qwen2": (_QWEN2,),
    "deepseek-r1-qwen": (_QWEN2,),
    "tekken": (_TEKKEN,),
}
_DIGITS_APART = frozenset({"smollm", "starcoder"})
_PLAIN = frozenset({"gpt-2", "phi-2"})

IGNORES_MERGES = frozenset({"llama-bpe", "llama3", "llama-v3", "pixtral", "tekken"})
"""A word that is a token is taken whole; these models' texts also begin with BOS."""
NORMALIZES = frozenset({"qwen2", "deepseek-r1-qwen"})
"""Text is brought to Unicode NFC first."""
SPLITS = (*_PATTERNS, *sorted(_DIGITS_APART), *sorted(_PLAIN))
"""Every name that is known."""


def pre_tokenizer(name: str) -> PreTokenizer | None:
    """The split called `name`, ending in bytes written as characters; None if unknown."""
    if name in _PLAIN:
        return ByteLevel(add_prefix_space=False)
    if name in _DIGITS_APART:
        return Steps([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    if name not in _PATTERNS:
        return None
    splits = [Split(Regex(pattern), "isolated") for pattern in _PATTERNS[name]]
    return Steps([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
