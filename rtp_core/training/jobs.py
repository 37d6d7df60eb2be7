"""What the model is asked to write, in which order; all follows from seed and settings."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

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


def answer_jobs(
    form: ChatForm, asked: Sequence[tuple[str, str]], settings: DataSettings
) -> list[Job]:
    """An answer to each (source, question) that leaves room for one."""
    rng = random.Random(f"{settings.seed}-answers")
    jobs = []
    for source, question in asked:
        prompt = form.prompt(question)
        temperature, seed = rng.choice(TEMPERATURES), rng.getrandbits(31)
        room = min(settings.answer_tokens, settings.max_length - len(prompt))
        if room >= _ROOM:
            jobs.append(Job(prompt, source, temperature, seed, room))
    return jobs


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
