"""The training itself: one pass of the target serves the losses of all heads."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from rtp_core.api import DraftHead
from rtp_core.observe.log import line
from rtp_core.training.batches import batch_number
from rtp_core.training.checkpoint import (
    Place,
    Told,
    Trained,
    load_checkpoint,
    save_checkpoint,
)
from rtp_core.training.lessons import Lessons, captured_of
from rtp_core.training.losses import loss_of
from rtp_core.training.settings import TrainSettings

log = logging.getLogger("rtp.training")
_BETAS = (0.9, 0.95)
_CLIP = 0.5
_WARMUP_STEPS, _WARMUP_SHARE = 40, 0.05
_TOLD_S = 20.0
_TOLD_STEPS = (0, 4)
CHECKPOINT_S = 60.0

Progress = Callable[[float], None]
"""Called with the share of the training that is over."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pupil:
    """A head, and the layers whose states it reads."""

    head: DraftHead
    layers: Sequence[int]


class Training:
    """Trains pupils on lessons; `layers` are those that the lessons captured.

    `seconds` bound the training if `settings.steps` does not. The result is a function of
    settings, texts and seed where steps do; a clock does not strike twice at the same step.
    """

    def __init__(
        self,
        pupils: Mapping[str, Pupil],
        lessons: Lessons,
        layers: Sequence[int],
        settings: TrainSettings,
        seconds: float | None = None,
    ) -> None:
        self._pupils = pupils
        self._lessons = lessons
        self._layers = layers
        self._settings = settings
        self._seconds = seconds
        self._trained = {name: _trained(pupil.head) for name, pupil in pupils.items()}

    def run(self, folder: Path, progress: Progress, checkpoint_s: float = CHECKPOINT_S) -> Place:
        """From where the last checkpoint in `folder` was to the end; leaves one there."""
        place = load_checkpoint(folder, self._trained)
        before_s, began_s = place.seconds, time.monotonic()
        told_s = saved_s = began_s
        while (share := self._share(place)) < 1.0:
            tell = place.step in _TOLD_STEPS or time.monotonic() - told_s > _TOLD_S
            self._step(place, share, tell=tell)
            now_s = time.monotonic()
            told_s = now_s if tell else told_s
            place.seconds = before_s + now_s - began_s
            progress(self._share(place))
            if now_s - saved_s > checkpoint_s:
                save_checkpoint(folder, place, self._trained)
                saved_s = time.monotonic()
        save_checkpoint(folder, place, self._trained)
        return place

    def _share(self, place: Place) -> float:
        if self._settings.steps is not None:
            return place.step / self._settings.steps
        return place.seconds / (self._seconds or 1.0)

    def _step(self, place: Place, share: float, *, tell: bool) -> None:
        """One step of every pupil; what is told is worth its extra pass over the logits."""
        number = batch_number(place.step, len(self._lessons), self._settings.seed)
        lesson = self._lessons.lesson(number)
        rate = _rate(place.step, share, self._settings.steps)
        place.step += 1
        place.tokens += self._lessons.num_tokens(number)
        for name, pupil in self._pupils.items():
            hidden = lesson.final.shape[-1]
            captured = captured_of(lesson.captured, self._layers, pupil.layers, hidden)
            own = dataclasses.replace(lesson, captured=captured)
            loss, seen = loss_of(pupil.head.predict(own, share), lesson.laws, look=tell)
            _descend(loss, self._trained[name], pupil.head.learning_rate * rate)
            if tell:
                _note(place, name, round(loss.item(), 3), [round(one, 3) for one in seen])


def _trained(head: DraftHead) -> Trained:
    parameters = list(head.module.parameters())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=head.learning_rate,
        betas=_BETAS,
        weight_decay=0.0,
        fused=parameters[0].device.type == "cuda",
    )
    return Trained(head.module, optimizer)


def _descend(loss: torch.Tensor, trained: Trained, rate: float) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained.module.parameters(), _CLIP)
    for group in trained.optimizer.param_groups:
        group["lr"] = rate
    trained.optimizer.step()
    trained.optimizer.zero_grad(set_to_none=True)


def _rate(step: int, share: float, steps: int | None) -> float:
    """Linear from nothing, then half a cosine to nothing."""
    warmup = _WARMUP_STEPS if steps is None else min(_WARMUP_STEPS, 1 + _WARMUP_SHARE * steps)
    return min(1.0, (step + 1) / warmup) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


def _note(place: Place, method: str, loss: float, found: list[float]) -> None:
    place.curve.append(Told(round(place.seconds, 1), place.step, method, loss, found))
    shown = "/".join(f"{one:.2f}" for one in found)
    log.info(line("training", step=place.step, method=method, loss=loss, agreement=shown))
