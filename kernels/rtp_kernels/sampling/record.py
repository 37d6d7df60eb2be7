"""What a slot holds on the device: one record of 16 words a sequence, and sorted special tokens.

A record is int32 [16], its fields as in `fields.py`; reals are float32 bits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

WORDS = 16

# A count of a token: how often it was drawn, and in the sign whether the prompt has it.
MOST_COUNTED = 0x7FFF
IN_PROMPT = -0x8000
NO_TOKEN = 2**31 - 1
# Quotients of logits stay finite, and differences still drown all noise.
_COLDEST = 1e-30
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class SlotEntry:
    """A sequence that takes a slot, with the meaning `SamplingParams` gives its fields.

    seed: 64 bits, signed or not. stop_ids: not drawn before `min_tokens` tokens of output.
    prompt_ids matter to a repetition penalty only; output_ids are the tokens drawn before a
    preemption. Token ids outside the vocabulary change nothing.
    """

    slot: int
    seed: int = 0
    choice: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    bias: Mapping[int, float] = field(default_factory=dict)
    stop_ids: Sequence[int] = ()
    min_tokens: int = 0
    num_prompt: int = 0
    prompt_ids: Sequence[int] = ()
    output_ids: Sequence[int] = ()

    @property
    def penalised(self) -> bool:
        """True when earlier tokens change the logits."""
        return (
            self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
            or self.repetition_penalty != 1.0
        )

    @property
    def random(self) -> bool:
        """True when noise decides."""
        return self.temperature != 0.0

    @property
    def truncated(self) -> bool:
        """True when not every token may be drawn."""
        return self.random and (self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0)

    @property
    def processed(self) -> bool:
        """True when the logits change before temperature."""
        return self.penalised or bool(self.bias) or self.min_tokens > 0


def words(entry: SlotEntry, vocab_size: int, specials: int) -> np.ndarray:
    """int32 [16]: the record of `entry`."""
    record = np.zeros(WORDS, dtype=np.int32)
    real = record.view(np.float32)
    record[0:3].view(np.uint32)[:] = (
        entry.seed & 0xFFFFFFFF,
        (entry.seed >> 32) & 0xFFFFFFFF,
        entry.choice,
    )
    real[3] = max(entry.temperature, _COLDEST) if entry.random else 0.0
    record[4] = entry.top_k if 0 < entry.top_k < vocab_size else 0
    real[5] = max(entry.top_p, _SMALLEST)
    real[6] = np.log(np.float32(entry.min_p)) if entry.min_p > 0.0 else -math.inf
    real[7:10] = (entry.presence_penalty, entry.frequency_penalty, entry.repetition_penalty)
    record[10] = min(entry.num_prompt + entry.min_tokens, NO_TOKEN)
    record[11] = specials
    record[12] = entry.penalised
    return record


def special_tokens(entry: SlotEntry, vocab_size: int) -> list[tuple[int, float]]:
    """Pairs (token, what is added to its logit) in order of tokens; -inf marks a stop token."""
    pairs = [(token, float(value)) for token, value in entry.bias.items()]
    if entry.min_tokens > 0:
        pairs += [(token, -math.inf) for token in set(entry.stop_ids)]
    return sorted(pair for pair in pairs if 0 <= pair[0] < vocab_size)


def counted_tokens(entry: SlotEntry, vocab_size: int) -> list[tuple[int, int]]:
    """Pairs (token, its count as the table holds it), each token once."""
    if not entry.penalised:
        return []
    held = {token: min(count, MOST_COUNTED) for token, count in Counter(entry.output_ids).items()}
    if entry.repetition_penalty != 1.0:
        for token in entry.prompt_ids:
            held[token] = held.get(token, 0) | IN_PROMPT
    return [(token, count) for token, count in held.items() if 0 <= token < vocab_size]
