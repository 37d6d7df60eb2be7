"""Grammars of structured output over a model's vocabulary, compiled by llguidance.

llguidance matches an Earley parser over derivative-based regular expressions against the
vocabulary's prefix tree; it compiles lazily, and fuel bounds every step, so a hostile grammar
costs a bounded time and then fails by itself. JSON is compact, without optional blanks: small
models emit blanks for ever where they may.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtp_core.api import StructuredOutput
from rtp_core.errors import RequestError
from rtp_core.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

FIELD = "structured_outputs"
CACHE_BYTES = 64 * 2**20
MAX_REASON_CHARS = 300
_MATCHER_BYTES = 128 * 2**10
_BYTES_PER_CHAR = 192
_MOST_LEXER_STATES = 20_000


@dataclass(slots=True)
class GrammarCounts:
    """Since start. `seconds` went into compilation, refused grammars included."""

    compiled: int = 0
    cached: int = 0
    refused: int = 0
    seconds: float = 0.0


class Grammars:
    """Matchers for constraints, each at its beginning; any thread may ask.

    `tokenizer` is called once, at the first use, as is what llguidance makes of the vocabulary.
    Compiled grammars are kept, least recently used ones leave beyond `cache_bytes` (estimated
    from their size, as the library does not tell).
    """

    def __init__(
        self,
        tokenizer: Callable[[], Tokenizer],
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.counts = GrammarCounts()
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos = eos_token_ids
        self._room = cache_bytes
        self._kept: OrderedDict[StructuredOutput, LLMatcher] = OrderedDict()
        self._kept_bytes = 0
        self._vocabulary: LLTokenizer | None = None
        self._opening = threading.Lock()
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Estimated bytes of the compiled grammars that are kept."""
        return self._kept_bytes

    def matcher(self, structured: StructuredOutput) -> LLMatcher:
        """A matcher that has consumed nothing.

        Raises RequestError naming ``structured_outputs`` when there is no such grammar, or it
        is too complex.
        """
        with self._lock:
            kept = self._kept.get(structured)
            if kept is not None:
                self._kept.move_to_end(structured)
                self.counts.cached += 1
                return kept.deep_copy()
        began = time.perf_counter()
        try:
            fresh = self._compile(structured)
        except RequestError:
            self._count(time.perf_counter() - began, refused=True)
            raise
        self._count(time.perf_counter() - began, refused=False)
        self._keep(structured, fresh.deep_copy())
        return fresh

    def _compile(self, structured: StructuredOutput) -> LLMatcher:
        library = llguidance()
        matcher = library.LLMatcher(
            self._open_vocabulary(),
            grammar_text(structured),
            log_level=0,
            limits=library.LLParserLimits(
                max_lexer_states=_MOST_LEXER_STATES, verbose_errors=False
            ),
        )
        if not matcher.is_error():
            matcher.compute_bitmask()  # some limits show at the first step only
        if matcher.is_error():
            reason = matcher.get_error().split("\n")[0][:MAX_REASON_CHARS]
            raise RequestError(FIELD, f"the {structured.kind} cannot be used: {reason}")
        return matcher

    def _open_vocabulary(self) -> LLTokenizer:
        with self._opening:
            if self._vocabulary is None:
                self._vocabulary = self._read_vocabulary()
            return self._vocabulary

    def _read_vocabulary(self) -> LLTokenizer:
        tokenizer = self._tokenizer()
        size = max(self._vocab_size, tokenizer.vocab_size)
        try:
            return llguidance().LLTokenizer(
                tokenizer.to_json(), n_vocab=size, eos_token=list(self._eos) or None
            )
        except ValueError as error:
            raise RequestError(
                FIELD,
                "this model's tokenizer does not tell the bytes of its tokens, so its text "
                f"cannot be constrained: {str(error)[:MAX_REASON_CHARS]}",
                status=501,
            ) from error

    def _count(self, seconds: float, *, refused: bool) -> None:
        with self._lock:
            self.counts.seconds += seconds
            self.counts.refused += refused
            self.counts.compiled += not refused

    def _keep(self, structured: StructuredOutput, matcher: LLMatcher) -> None:
        with self._lock:
            if structured in self._kept:
                return
            self._kept[structured] = matcher
            self._kept_bytes += estimated_bytes(structured)
            while self._kept_bytes > self._room:
                oldest, _ = self._kept.popitem(last=False)
                self._kept_bytes -= estimated_bytes(oldest)


def llguidance() -> Any:
    """The library. Raises a RequestError with the remedy when it is not installed."""
    try:
        import llguidance as library
    except ImportError as error:
        raise RequestError(
            FIELD,
            "structured output needs the package llguidance, which is not installed",
            status=501,
            remedy="pip install 'llguidance>=1.7,<2' beside the server",
        ) from error
    return library


def library_version() -> str | None:
    """Of the llguidance that is installed, without importing it; None without one."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llguidance")
    except PackageNotFoundError:
        return None


def grammar_text(structured: StructuredOutput) -> str:
    """What llguidance compiles for a constraint. Raises RequestError for malformed JSON."""
    library, text = llguidance().LLMatcher, structured.text
    match structured.kind:
        case "json_object":
            return _json_grammar('{"type":"object"}')
        case "json_schema":
            return _json_grammar(text)
        case "regex":
            return _regex_grammar(text)
        case "choice":
            strings = " | ".join(map(_terminal, structured.choices))
            return library.grammar_from_lark(f"start: {strings}")
        case "grammar":
            return library.grammar_from_lark(text)


def _regex_grammar(pattern: str) -> str:
    """Digits and blanks are those of ASCII, letters those of Unicode."""
    return f"start: /{llguidance().regex_to_lark(pattern, 'ds')}/"


def _terminal(text: str) -> str:
    """A terminal of Lark; its strings have no escapes for control characters, patterns do."""
    if all(char.isprintable() or char == "\n" for char in text):
        return json.dumps(text, ensure_ascii=False)
    codes = (f"\\x{{{ord(char):x}}}" for char in text)
    return f"/{''.join(codes)}/"


def _json_grammar(schema: str) -> str:
    try:
        return llguidance().LLMatcher.grammar_from_json_schema(
            schema, overrides={"whitespace_flexible": False}
        )
    except ValueError as error:
        raise RequestError(FIELD, "the json_schema is no JSON object") from error


def estimated_bytes(structured: StructuredOutput) -> int:
    """Memory of a compiled grammar, on the safe side."""
    return _MATCHER_BYTES + _BYTES_PER_CHAR * len(structured.text)
