"""What a training is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rtp_core.errors import ConfigError

TEMPERATURES = (0.0, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Texts that the model writes: how many, and how long they may be, in tokens.

    `questions` are those that the model asks itself; each is answered, as other prompts are
    until there are `texts`.
    """

    seed: int = 0
    texts: int = 50_000
    questions: int = 14_000
    max_length: int = 768
    answer_tokens: int = 400
    held_out_tokens: int = 224
    held_out_prompts: int = 64

    def __post_init__(self) -> None:
        for name in ("texts", "answer_tokens", "held_out_tokens", "held_out_prompts"):
            _at_least_one(f"--{name.replace('_', '-')}", getattr(self, name))
        if self.max_length < 2 * self.held_out_tokens:
            raise ConfigError(
                "--max-length",
                f"{self.max_length} leaves no room for prompts",
                remedy=f"give at least {2 * self.held_out_tokens}",
            )

    def record(self) -> dict[str, Any]:
        """What must be equal for texts to be the same."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How long and how fast. One of `steps` and `minutes` is given.

    `minutes` are those of the whole command: a quarter goes to writing texts, a tenth is left
    for measuring. `step_tokens` are those of a step, with padding; None is what suits the device.
    """

    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    step_tokens: int | None = None
    draft_vocab: int = 8192

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ConfigError("--steps", "give either --steps or --minutes")
        for name in ("steps", "minutes", "step_tokens", "draft_vocab"):
            value = getattr(self, name)
            if value is not None:
                _at_least_one(f"--{name.replace('_', '-')}", value)

    def record(self) -> dict[str, Any]:
        """What must be equal for a training to go on."""
        return asdict(self)


def _at_least_one(flag: str, value: float) -> None:
    if value < (1 if isinstance(value, int) else 0.01):
        raise ConfigError(flag, f"{value} is too little", remedy="give at least 1")
