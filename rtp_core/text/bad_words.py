"""Words that may not be said, as the sequences of tokens that would say them."""

from __future__ import annotations

from dataclasses import replace

from rtp_core.api import SamplingParams
from rtp_core.text.tokenizer import Tokenizer


def with_bad_token_ids(sampling: SamplingParams, tokenizer: Tokenizer) -> SamplingParams:
    """`sampling` whose bad words are known as tokens, too.

    As with vLLM, a word counts at the beginning of a text and after a space; other ways to cut
    its characters into tokens are not barred.
    """
    if not sampling.bad_words:
        return sampling
    banned = dict.fromkeys(sampling.bad_token_ids)
    for word in sampling.bad_words:
        for spelling in (word.strip(), f" {word.strip()}") if word.strip() else (word,):
            ids = tokenizer.encode(spelling, add_special_tokens=False, allow_special=False)
            banned[tuple(ids)] = None
    banned.pop((), None)
    return replace(sampling, bad_token_ids=tuple(banned))
