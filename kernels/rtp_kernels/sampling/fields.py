"""Words of a slot's record, for device code. Fields marked f are float32 bits."""

from __future__ import annotations

from triton import language as tl

from rtp_kernels.sampling import record

WORDS = tl.constexpr(record.WORDS)
SEED_LOW = tl.constexpr(0)
SEED_HIGH = tl.constexpr(1)
CHOICE = tl.constexpr(2)
TEMPERATURE = tl.constexpr(3)  # f; 0 is argmax
TOP_K = tl.constexpr(4)  # 0 is off
TOP_P = tl.constexpr(5)  # f; 1 is off
LOG_MIN_P = tl.constexpr(6)  # f; -inf is off
PRESENCE = tl.constexpr(7)  # f
FREQUENCY = tl.constexpr(8)  # f
REPETITION = tl.constexpr(9)  # f
FREE_TO_STOP = tl.constexpr(10)  # position from which stop tokens may be drawn
SPECIALS = tl.constexpr(11)  # how many special tokens
PENALISED = tl.constexpr(12)  # 1 when counts of tokens matter
MOST_COUNTED = tl.constexpr(record.MOST_COUNTED)
NO_TOKEN = tl.constexpr(record.NO_TOKEN)
