"""From texts to published heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rtp_core.api import DraftMethod
from rtp_core.errors import ModelError
from rtp_core.training.batches import make_batches
from rtp_core.training.lessons import Lessons, captured_of
from rtp_core.training.loop import Progress, Pupil, Training
from rtp_core.training.publish import write_head, write_metrics
from rtp_core.training.settings import TrainSettings
from rtp_core.training.target import Target
from rtp_core.training.texts import Text
from rtp_core.training.vocabulary import draft_vocabulary


@dataclass(frozen=True, slots=True)
class School:
    """Methods learn from one target; what they learnt goes to folders of `out`."""

    target: Target
    methods: Mapping[str, DraftMethod]
    settings: TrainSettings
    out: Path
    origin: Mapping[str, Any]
    max_shard_bytes: int | None = None

    def train(
        self,
        texts: Sequence[Text],
        always_drafted: frozenset[int],
        work: Path,
        seconds: float | None,
        progress: Progress,
    ) -> None:
        """Publish a head a method. Raises ModelError where there is nothing to learn from."""
        if not texts:
            raise ModelError(
                "the model wrote nothing to learn from but loops",
                remedy="give more --minutes or more --texts",
            )
        spec, device = self.target.spec, self.target.device
        vocab_ids, coverage = draft_vocabulary(
            (text.answer for text in texts),
            self.settings.draft_vocab,
            spec.vocab_size,
            always_drafted,
        )
        layers_of = {name: tuple(one.capture_layers(spec)) for name, one in self.methods.items()}
        layers = sorted({layer for many in layers_of.values() for layer in many})
        batches = make_batches(texts, self.settings.step_tokens or 1, self.settings.seed, device)
        lessons = Lessons(self.target, batches, layers, vocab_ids.to(device))
        pupils = self._pupils(lessons, layers, layers_of, vocab_ids.to(device))
        training = Training(pupils, lessons, layers, self.settings, seconds)
        place = training.run(work, progress)
        record = {
            "steps": place.step,
            "trained_tokens": place.tokens,
            "seconds": round(place.seconds, 1),
            "epochs": round(place.step / len(lessons), 2),
            "answer_tokens": sum(len(text.answer) for text in texts),
            "draft_vocabulary_coverage": round(coverage, 4),
        }
        for name, pupil in pupils.items():
            origin = {**self.origin, **record}
            write_head(self.out / name, pupil.head.files(), origin, self.max_shard_bytes)
            write_metrics(self.out / name, {**origin, "curve": place.curve})

    def _pupils(
        self,
        lessons: Lessons,
        layers: Sequence[int],
        layers_of: Mapping[str, Sequence[int]],
        vocab_ids: torch.Tensor,
    ) -> dict[str, Pupil]:
        """New heads; those of one seed begin alike, whichever are trained beside them."""
        middle, pupils = len(lessons) // 2, {}
        for name, method in self.methods.items():
            states = captured_of(
                lessons.states(middle), layers, layers_of[name], self.target.spec.hidden_size
            )
            torch.manual_seed(self.settings.seed)
            pupils[name] = Pupil(
                method.new_head(self.target.view, vocab_ids, states), layers_of[name]
            )
        return pupils
