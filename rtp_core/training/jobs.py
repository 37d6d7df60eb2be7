"""What the model is asked to write, in which order; all follows from seed and settings."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import overload

from rtp_core.training.chat_form import ChatForm
from rtp_core.training.loops import loop_free_length
from rtp_core.training.settings import TEMPERATURES, DataSettings
from rtp_core.training.texts import Text
from rtp_core.training.writing import Job

QUESTION = "question"
_QUESTION_TOKENS = 160
_QUESTION_TEMPERATURES = (0.8, 1.0, 1.0)
_SHORTEST_QUESTION = 4
_SAME_START = 24
_ROOM = 24
"""Prompts that leave fewer tokens for an answer are left out."""
SHORTEST_CUT = 24
_SHORTEST_ANSWER = 4
"""Of an answer that ended by itself."""


def question_jobs(form: ChatForm, settings: DataSettings, number: int) -> Iterator[Job]:
    """The model asks `number` questions."""
    beginning = form.beginning()
    rng = random.Random(f"{settings.seed}-{QUESTION}")
    longest = min(_QUESTION_TOKENS, settings.max_length - len(beginning))
    for _ in range(number):
        temperature = rng.choice(_QUESTION_TEMPERATURES)
        yield Job(beginning, QUESTION, temperature, rng.getrandbits(31), longest)


def questions_in(texts: Sequence[Text], form: ChatForm) -> list[str]:
    """Questions that ended by themselves, once each, without loops."""
    found: dict[tuple[int, ...], str] = {}
    for text in texts:
        body = text.answer[:-1]
        start = tuple(body[:_SAME_START])
        good = text.ended and len(body) >= _SHORTEST_QUESTION and start not in found
        if good and loop_free_length(body) == len(body):
            question = form.question(body)
            if question is not None:
                found[start] = question
    return list(found.values())


class AnswerJobs(Sequence[Job | None]):
    """An answer to each (source, question); None where there is no room for one.

    A prompt is made when it is asked for: making all of them takes longer than the engine should
    wait.
    """

    def __init__(
        self, form: ChatForm, asked: Sequence[tuple[str, str]], settings: DataSettings
    ) -> None:
        rng = random.Random(f"{settings.seed}-answers")
        self._form = form
        self._settings = settings
        self._asked = [
            (source, question, rng.choice(TEMPERATURES), rng.getrandbits(31))
            for source, question in asked
        ]

    def __len__(self) -> int:
        return len(self._asked)

    @overload
    def __getitem__(self, at: int) -> Job | None: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Job | None]: ...
    def __getitem__(self, at: int | slice) -> Job | Sequence[Job | None] | None:
        if isinstance(at, slice):
            return [self[number] for number in range(len(self))[at]]
        source, question, temperature, seed = self._asked[at]
        prompt = self._form.prompt(question)
        room = min(self._settings.answer_tokens, self._settings.max_length - len(prompt))
        return Job(prompt, source, temperature, seed, room) if room >= _ROOM else None


def held_out_jobs(
    form: ChatForm, questions: dict[str, list[str]], settings: DataSettings
) -> list[Job]:
    """Every question greedily and at temperature 0.8."""
    jobs = []
    for source in sorted(questions):
        for number, question in enumerate(questions[source][: settings.held_out_prompts]):
            prompt = form.prompt(question)
            if len(prompt) + settings.held_out_tokens <= settings.max_length:
                jobs += [
                    Job(prompt, source, temperature, 1000 + number, settings.held_out_tokens)
                    for temperature in (0.0, 0.8)
                ]
    return jobs


def without_loop(text: Text, shortest: int = SHORTEST_CUT) -> Text | None:
    """Cut where a loop begins; None where less than `shortest` tokens of an answer are left.

    One that ended by itself may be shorter.
    """
    length = loop_free_length(text.answer)
    whole = length == len(text.answer) and text.ended
    if length < (min(_SHORTEST_ANSWER, shortest) if whole else shortest):
        return None
    return Text(
        text.token_ids[: text.num_prompt + length],
        text.num_prompt,
        text.source,
        text.temperature,
        text.seed,
        whole,
    )
