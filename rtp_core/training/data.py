"""The texts a head learns from and is measured with: written by the model that it will serve.

Self-distillation makes training and use the same distribution. The model asks some of the
questions itself; what loops is cut.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rtp_core.training.chat_form import ChatForm
from rtp_core.training.jobs import (
    answer_jobs,
    held_out_jobs,
    question_jobs,
    questions_in,
    without_loop,
)
from rtp_core.training.prompts import make_prompts
from rtp_core.training.settings import DataSettings
from rtp_core.training.shards import Advance, Shards
from rtp_core.training.tensor_file import save_text
from rtp_core.training.texts import Text
from rtp_core.training.writing import Writer

DONE = "done.json"
_QUESTIONS_SHARE = 0.2
"""Of the time for writing."""
_OWN = "own"
_SHORTEST_HELD_OUT = 8

Told = Callable[[str, int], Advance]
"""(what is made, how many) -> what is called while they are made."""


@dataclass(frozen=True, slots=True)
class OpenWriter:
    """An engine and how many jobs it is given at once."""

    engine: Writer
    at_once: int


@dataclass(frozen=True, slots=True)
class TextData:
    """A folder of texts, made in three steps of which each goes on where it was left."""

    folder: Path
    settings: DataSettings
    form: ChatForm

    @property
    def done(self) -> bool:
        """Whether all texts are there."""
        return (self.folder / DONE).is_file()

    def make(
        self,
        open_writer: Callable[[], AbstractContextManager[OpenWriter]],
        told: Told,
        seconds: float | None,
    ) -> None:
        """What is missing. After `seconds`, engine's start included, what there is must do."""
        began_s = time.monotonic()
        with open_writer() as writer:
            questions_s = None if seconds is None else began_s + _QUESTIONS_SHARE * seconds
            self._ask(writer, told, questions_s)
            self._write_held_out(writer, told)
            self._answer(writer, told, None if seconds is None else began_s + seconds)
        save_text(self.folder / DONE, json.dumps(self._summary(), indent=1) + "\n")

    def train_texts(self) -> list[Text]:
        """Without loops."""
        cut = (without_loop(text) for text in self._shards("text").texts())
        return [text for text in cut if text is not None]

    def held_out_texts(self) -> list[Text]:
        """Without loops, and long enough to say something."""
        written = self._shards("held-out").texts()
        cut = (without_loop(text, _SHORTEST_HELD_OUT) for text in written)
        return [text for text in cut if text is not None]

    def _shards(self, kind: str) -> Shards:
        return Shards(self.folder, kind)

    def _ask(self, writer: OpenWriter, told: Told, until_s: float | None) -> None:
        number = self.settings.questions
        if number and not self._begun("held-out"):
            jobs = list(question_jobs(self.form, self.settings, number))
            advance = told("questions", number)
            self._shards("question").write(writer.engine, jobs, writer.at_once, advance, until_s)

    def _own_questions(self) -> tuple[list[str], list[str]]:
        """To train on, and to measure with."""
        own = questions_in(list(self._shards("question").texts()), self.form)
        held_out = min(self.settings.held_out_prompts, len(own) // 4)
        return own[held_out:], own[:held_out]

    def _write_held_out(self, writer: OpenWriter, told: Told) -> None:
        held_out = {**make_prompts(self.settings.seed).held_out, _OWN: self._own_questions()[1]}
        jobs = held_out_jobs(self.form, held_out, self.settings)
        advance = told("held-out texts", len(jobs))
        self._shards("held-out").write(writer.engine, jobs, writer.at_once, advance)

    def _answer(self, writer: OpenWriter, told: Told, until_s: float | None) -> None:
        asked = [(_OWN, one) for one in self._own_questions()[0]]
        asked += make_prompts(self.settings.seed).train
        random.Random(f"{self.settings.seed}-order").shuffle(asked)
        jobs = answer_jobs(self.form, asked[: self.settings.texts], self.settings)
        advance = told("texts", len(jobs))
        self._shards("text").write(writer.engine, jobs, writer.at_once, advance, until_s)

    def _begun(self, kind: str) -> bool:
        """Later texts follow from the questions there were, so no more are asked."""
        return any(self.folder.glob(f"{kind}-*.msgpack"))

    def _summary(self) -> dict[str, object]:
        texts = self.train_texts()
        written = list(self._shards("text").texts())
        sources = sorted({text.source for text in texts})
        return {
            "texts": {one: sum(text.source == one for text in texts) for one in sources},
            "answer_tokens": sum(len(text.answer) for text in texts),
            "written_tokens": sum(len(text.answer) for text in written),
            "held_out_texts": len(self.held_out_texts()),
        }
