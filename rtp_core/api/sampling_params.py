"""How the next token of one request is chosen, with every bound checked at construction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rtp_core.api.structured import StructuredOutput
from rtp_core.errors import RequestError

MAX_CHOICES = 128
MAX_LOGPROBS = 20
MAX_STOP_STRINGS = 4
MAX_STOP_STRING_CHARS = 1024
MAX_MARKER_TOKENS = 64
MAX_BAD_WORDS = 128
MAX_BAD_WORD_CHARS = 1024
SEED_BOUND = 2**63


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters with the meaning OpenAI and vLLM give them.

    `temperature` 0 is argmax. `top_k` 0 or -1 and `top_p` 1 switch truncation off.
    `seed` None draws a fresh seed at admission. `max_tokens` None fills the context.
    `logprobs` asks for that many alternatives a token, from the raw distribution.
    `structured` constrains the whole text of each choice, or, with `structured_after`, what
    follows the first occurrence of these token ids in it (the end of thinking, say).
    `prompt_logprobs` asks the same of the prompt's tokens, all of which are computed then.
    Of `allowed_token_ids` is drawn if given; `bad_words` never come, and neither do the
    sequences of `bad_token_ids`, which is what the engine knows them by.
    Raises RequestError naming the field when a value is out of bounds.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int | None = 16
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    structured: StructuredOutput | None = None
    structured_after: tuple[int, ...] | None = None
    prompt_logprobs: int | None = None
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    bad_token_ids: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        self._check_counts()
        self._check_reals()
        self._check_stops()
        self._check_bias()
        self._check_structured()
        self._check_bans()

    @property
    def greedy(self) -> bool:
        """True when the token is the argmax and no noise is drawn."""
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        """True when earlier tokens change the logits."""
        return (
            self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
            or self.repetition_penalty != 1.0
        )

    @property
    def masked(self) -> bool:
        """True when what has been drawn decides which tokens may follow."""
        return self.structured is not None or self.has_bans

    @property
    def has_bans(self) -> bool:
        """True when some tokens may not be drawn, whatever a grammar says."""
        return self.allowed_token_ids is not None or bool(self.bad_token_ids)

    def _check_counts(self) -> None:
        _integer("n", self.n, 1, MAX_CHOICES)
        _integer("top_k", self.top_k, -1, 2**31 - 1)
        _integer("min_tokens", self.min_tokens, 0, 2**31 - 1)
        if self.max_tokens is not None:
            _integer("max_tokens", self.max_tokens, 0, 2**31 - 1)
            if self.min_tokens > self.max_tokens:
                raise RequestError(
                    "min_tokens", f"min_tokens must be at most max_tokens ({self.max_tokens})"
                )
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if self.prompt_logprobs is not None:
            _integer("prompt_logprobs", self.prompt_logprobs, 0, MAX_LOGPROBS)
        if self.seed is not None:
            _integer("seed", self.seed, -SEED_BOUND, SEED_BOUND - 1)

    def _check_reals(self) -> None:
        _real("temperature", self.temperature, 0.0, 2.0)
        _real("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _real("min_p", self.min_p, 0.0, 1.0)
        _real("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _real("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _real("repetition_penalty", self.repetition_penalty, 0.0, 100.0, open_low=True)

    def _check_stops(self) -> None:
        if len(self.stop) > MAX_STOP_STRINGS:
            raise RequestError("stop", f"stop takes at most {MAX_STOP_STRINGS} strings")
        for text in self.stop:
            if not isinstance(text, str) or not 0 < len(text) <= MAX_STOP_STRING_CHARS:
                raise RequestError(
                    "stop", f"a stop string has 1 to {MAX_STOP_STRING_CHARS} characters"
                )
        for token in self.stop_token_ids:
            _integer("stop_token_ids", token, 0, 2**31 - 1)

    def _check_bias(self) -> None:
        for token, bias in self.logit_bias.items():
            _integer("logit_bias", token, 0, 2**31 - 1)
            _real("logit_bias", bias, -100.0, 100.0)

    def _check_structured(self) -> None:
        if not isinstance(self.structured, StructuredOutput | None):
            raise RequestError("structured", "structured must be a StructuredOutput")
        if self.structured_after is None:
            return
        marker = tuple(self.structured_after)
        object.__setattr__(self, "structured_after", marker)
        if self.structured is None or not 0 < len(marker) <= MAX_MARKER_TOKENS:
            raise RequestError(
                "structured_after",
                f"structured_after needs structured and has 1 to {MAX_MARKER_TOKENS} token ids",
            )
        for token in marker:
            _integer("structured_after", token, 0, 2**31 - 1)

    def _check_bans(self) -> None:
        if self.allowed_token_ids is not None:
            allowed = tuple(dict.fromkeys(self.allowed_token_ids))
            object.__setattr__(self, "allowed_token_ids", allowed)
            if not allowed:
                raise RequestError("allowed_token_ids", "allowed_token_ids has at least one id")
        for token in self.allowed_token_ids or ():
            _integer("allowed_token_ids", token, 0, 2**31 - 1)
        object.__setattr__(self, "bad_words", tuple(self.bad_words))
        if len(self.bad_words) > MAX_BAD_WORDS:
            raise RequestError("bad_words", f"bad_words takes at most {MAX_BAD_WORDS} strings")
        for word in self.bad_words:
            if not isinstance(word, str) or not 0 < len(word) <= MAX_BAD_WORD_CHARS:
                raise RequestError(
                    "bad_words", f"a bad word has 1 to {MAX_BAD_WORD_CHARS} characters"
                )
        banned = tuple(tuple(one) for one in self.bad_token_ids)
        object.__setattr__(self, "bad_token_ids", banned)
        if not all(banned):
            raise RequestError("bad_token_ids", "a sequence of bad_token_ids is not empty")
        for token in (token for one in banned for token in one):
            _integer("bad_token_ids", token, 0, 2**31 - 1)


def _integer(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise RequestError(name, f"{name} must be an integer")
    if not low <= value <= high:
        raise RequestError(name, f"{name} must be between {low} and {high}")


def _real(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise RequestError(name, f"{name} must be a finite number")
    if not low <= value <= high or (open_low and value == low):
        opening = "(" if open_low else "["
        raise RequestError(name, f"{name} must be in {opening}{low}, {high}]")
