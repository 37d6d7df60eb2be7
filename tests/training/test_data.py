"""Writing texts: what is asked, what is kept, how it goes on."""

from __future__ import annotations

import random

import pytest

from rtp_core.api import FinishReason, TokenEvent
from rtp_core.errors import ConfigError, ModelError
from rtp_core.training import shards as shards_module
from rtp_core.training.chat_form import ChatForm
from rtp_core.training.data import DONE, OpenWriter, TextData
from rtp_core.training.jobs import answer_jobs, questions_in, without_loop
from rtp_core.training.prompts import make_prompts
from rtp_core.training.settings import DataSettings, TrainSettings
from rtp_core.training.shards import Shards
from rtp_core.training.texts import Text
from rtp_core.training.writing import Job, write_all

EOS = 257
SMALL = DataSettings(
    texts=9, questions=4, max_length=2000, answer_tokens=30, held_out_tokens=20, held_out_prompts=2
)


class Scribe:
    """An engine whose texts depend on prompt, seed and temperature alone."""

    def __init__(self, die_after: int | None = None) -> None:
        self.requests = {}
        self.submitted = []
        self.aborted = []
        self.most = 0
        self._left = die_after

    def submit(self, request):
        sampling = request.sampling
        rng = random.Random(f"{request.prompt_token_ids}{sampling.seed}{sampling.temperature}")
        answer = [rng.randrange(97, 123) for _ in range(rng.randrange(9, 40))] + [EOS]
        self.requests[request.request_id] = answer[: sampling.max_tokens]
        self.submitted.append(request)
        self.most = max(self.most, len(self.requests))

    def step(self):
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
        events = []
        for name, answer in list(self.requests.items()):
            piece, rest = tuple(answer[:3]), answer[3:]
            self.requests[name] = rest
            reason = None
            if not rest:
                reason = FinishReason.STOP if piece[-1] == EOS else FinishReason.LENGTH
                del self.requests[name]
            events.append(TokenEvent(name, 0, piece, finish_reason=reason))
        return events

    def abort(self, request_id):
        self.aborted.append(request_id)


def jobs(count, length=30):
    return [Job([1, 2], "chat", 0.5, seed, length) for seed in range(count)]


def test_texts_are_prompt_and_answer_and_as_many_are_under_way_as_asked():
    scribe = Scribe()
    found = dict(write_all(scribe, jobs(7), at_once=3))
    assert sorted(found) == list(range(7))
    assert scribe.most == 3
    for number, text in found.items():
        assert text.token_ids[:2] == [1, 2]
        assert text.ended == (text.token_ids[-1] == EOS)
        assert text.seed == number
        assert len(text.answer) <= 30


def test_what_the_engine_gives_up_is_no_text():
    class Failing(Scribe):
        def step(self):
            return [TokenEvent(name, 0, (5,), finish_reason=FinishReason.ERROR, error="no")
                    for name in [*self.requests] if self.requests.pop(name)]  # fmt: skip

    assert dict(write_all(Failing(), jobs(2), at_once=2)) == {0: None, 1: None}


def test_after_the_time_is_over_the_rest_is_dropped():
    scribe = Scribe()
    assert dict(write_all(scribe, jobs(5), at_once=2, until_s=0.0)) == {}
    assert scribe.submitted == []


def test_shards_written_before_an_end_are_kept_and_the_rest_comes_out_the_same(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(shards_module, "SHARD_JOBS", 4)
    for name in "ab":
        (tmp_path / name).mkdir()
    whole = Shards(tmp_path / "a", "text")
    whole.write(Scribe(), jobs(10), 3, lambda _: None)
    parted = Shards(tmp_path / "b", "text")
    with pytest.raises(KeyboardInterrupt):
        parted.write(Scribe(die_after=20), jobs(10), 3, lambda _: None)
    before = sorted(one.name for one in (tmp_path / "b").iterdir())
    assert 0 < len(before) < 3
    again = Scribe()
    done = []
    parted.write(again, jobs(10), 5, done.append)
    assert len(again.submitted) == 10 - 4 * len(before)
    assert sum(done) == 10
    assert list(parted.texts()) == list(whole.texts())
    assert len(list(whole.texts())) == 10


def told(label, total):
    return lambda more: None


class Opening:
    """Opens one scribe, counting."""

    def __init__(self, scribe):
        self.scribe, self.times = scribe, 0

    def __call__(self):
        self.times += 1
        return self

    def __enter__(self):
        return OpenWriter(self.scribe, 4)

    def __exit__(self, *_):
        return None


def test_all_texts_come_from_settings_and_go_on_after_an_end(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD_JOBS", 2)
    form = ChatForm(tiny_model)
    found = []
    for name, ends in (("whole", [None]), ("parted", [30, 45, 20, 60, None])):
        folder = tmp_path / name
        folder.mkdir()
        data = TextData(folder, SMALL, form)
        for die_after in ends:
            try:
                data.make(Opening(Scribe(die_after)), told, None)
            except KeyboardInterrupt:
                assert not data.done
        assert data.done
        found.append((data.train_texts(), data.held_out_texts()))
    assert found[0] == found[1]
    train, held_out = found[0]
    assert {text.temperature for text in held_out} == {0.0, 0.8}
    assert {text.source for text in held_out} == {"chat", "code", "edit", "own"}
    prompts = {tuple(text.token_ids[: text.num_prompt]) for text in train}
    assert prompts.isdisjoint(tuple(one.token_ids[: one.num_prompt]) for one in held_out)


def test_prompts_are_equal_for_a_seed_and_held_out_ones_are_nowhere_else():
    one, two = make_prompts(1), make_prompts(1)
    assert one == two
    assert make_prompts(2).train != one.train
    asked = {question for _, question in one.train}
    assert all(asked.isdisjoint(many) for many in one.held_out.values())


def test_questions_are_those_that_ended_without_loop_or_control_tokens(tiny_model):
    form = ChatForm(tiny_model)
    start = form.beginning()
    assert form.tokenizer.decode(start, skip_special_tokens=False) == "<|im_start|>user\n"

    def asked(body, ended=True):
        ids = form.tokenizer.encode(body, add_special_tokens=False, allow_special=True)
        return Text([*start, *ids, EOS], len(start), "question", 1.0, 0, ended)

    texts = [
        asked("What is this?"),
        asked("What is this?"),
        asked("cut off", ended=False),
        asked("a <|im_start|> b"),
        asked("abcdefghij" * 4),
        asked("no"),
        asked("And that?"),
    ]
    assert questions_in(texts, form) == ["What is this?", "And that?"]


def test_prompts_without_room_for_an_answer_are_left_out(tiny_model):
    form = ChatForm(tiny_model)
    settings = DataSettings(max_length=200, held_out_tokens=20, answer_tokens=50)
    found = answer_jobs(form, [("chat", "short"), ("chat", "x" * 190)], settings)
    assert [len(one.prompt) < 100 for one in found] == [True]
    assert found[0].max_tokens == 50


def test_a_cut_text_no_longer_ended_and_too_little_is_none():
    loop = Text([0, *list(range(10)) * 9, EOS], 1, "chat", 0.0, 0, True)
    assert without_loop(loop) is None
    cut = without_loop(loop, 8)
    assert cut is not None
    assert (len(cut.answer), cut.ended) == (20, False)
    whole = Text([0, 5, 6, 7, EOS], 1, "chat", 0.0, 0, True)
    assert without_loop(whole) == whole


def test_a_model_without_template_is_refused(tiny_model, tmp_path):
    (tmp_path / "tokenizer.json").write_text((tiny_model / "tokenizer.json").read_text())
    with pytest.raises(ModelError, match="chat template"):
        ChatForm(tmp_path).prompt("hello")


def test_a_template_that_drops_the_question_is_refused(tiny_model):
    with pytest.raises(ModelError, match="does not repeat"):
        ChatForm(tiny_model, "{% if messages %}hello{% endif %}").beginning()


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: DataSettings(texts=0), "--texts"),
        (lambda: DataSettings(max_length=10), "--max-length"),
        (TrainSettings, "--steps"),
        (lambda: TrainSettings(steps=1, minutes=1.0), "--steps"),
        (lambda: TrainSettings(steps=0), "--steps"),
        (lambda: TrainSettings(minutes=-1.0), "--minutes"),
        (lambda: TrainSettings(steps=1, draft_vocab=0), "--draft-vocab"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_flag(make, flag):
    with pytest.raises(ConfigError, match=f"^{flag}: "):
        make()


def test_done_is_known_by_its_file(tiny_model, tmp_path):
    data = TextData(tmp_path, SMALL, ChatForm(tiny_model))
    assert not data.done
    (tmp_path / DONE).write_text("{}")
    assert data.done
