"""`rtp tune`: the search, what is kept of it, and what is done with a file that is not sound."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import given
from hypothesis import strategies as st

from rtp_core.cli.main import main
from rtp_core.engine import tuned_file, tuned_kernels
from rtp_core.engine.tune import Kept, tune_step
from rtp_core.engine.tune_search import PASSES, Axis, Remembered, descend
from rtp_core.engine.tuned_file import Conditions, driver_version, empty, load, save
from rtp_core.errors import RtpError
from rtp_kernels.gpu import forms, tuned

HERE = Conditions("NVIDIA H200", "580.65", "3.6.0", "2.11.0", "0.1.0")
DOWN, QKV = "linear_residual 512x1024", "norm_linear 768x512"


def swapped(k, splits=1):
    fields = {"block_n": 64, "block_k": k, "stages": 4, "splits": splits}
    return {"form": "swapped", **fields, "warps": 4, "tiles": True, "prefetch": 0}


CHOICES = {
    DOWN: [swapped(k, splits) for k in (64, 128, 256) for splits in (1, 2, 4)],
    QKV: [swapped(k) for k in (64, 128, 256)],
}
BEST = {DOWN: swapped(128, 4), QKV: swapped(256)}


class FakeSteps:
    """A step whose seconds are known for every setting; `limit` timings, then Ctrl-C."""

    name, context = "fake", 2048

    def __init__(self, limit=math.inf):
        self.timed = []
        self.compiled = []
        self._limit = limit

    def start(self, rows):
        return {slot: CHOICES[slot][0] for slot in CHOICES}

    def axes(self, rows):
        return [
            Axis(slot, lambda form, slot=slot: [one for one in CHOICES[slot] if one != form])
            for slot in CHOICES
        ]

    def compile(self, rows, settings):
        self.compiled.append(list(settings))

    def seconds(self, rows, setting):
        if len(self.timed) >= self._limit:
            raise KeyboardInterrupt
        self.timed.append(setting)
        return 1.0 + sum(0.1 for slot, form in setting.items() if form != BEST[slot])


@pytest.fixture(autouse=True)
def as_shipped():
    yield
    tuned.use_none()


@pytest.fixture
def kept(tmp_path):
    return Kept(empty(HERE), tuned_file.tuned_file(HERE, tmp_path))


def silent(done, total):
    assert 0 < done <= total


# ---- the search


@given(st.data())
def test_without_interactions_one_pass_finds_the_optimum(data):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    number = st.floats(0.1, 10)
    costs = [data.draw(st.lists(number, min_size=size, max_size=size)) for size in sizes]
    axes = [
        Axis(str(slot), lambda form, size=size: [{"at": at} for at in range(size)])
        for slot, size in enumerate(sizes)
    ]

    def seconds(setting):
        return sum(costs[int(slot)][form["at"]] for slot, form in setting.items())

    start = {str(slot): {"at": 0} for slot in range(len(sizes))}
    best, shortest = descend(start, axes, seconds)
    assert shortest == seconds(best) <= seconds(start)
    assert shortest <= sum(map(min, costs)) / (1 - 0.002) ** PASSES + 1e-9


def test_what_one_axis_gains_only_after_another_is_found_in_a_later_pass():
    def seconds(setting):
        a, b = setting["a"]["at"], setting["b"]["at"]
        return {(0, 0): 5.0, (0, 1): 4.0, (1, 1): 3.0}.get((a, b), 6.0)

    axes = [Axis(slot, lambda form: [{"at": 0}, {"at": 1}]) for slot in ("a", "b")]
    best, shortest = descend({"a": {"at": 0}, "b": {"at": 0}}, axes, seconds)
    assert (best, shortest) == ({"a": {"at": 1}, "b": {"at": 1}}, 3.0)


def test_noise_and_forms_that_cannot_run_change_nothing():
    seconds = {0: 1.0, 1: 0.999, 2: math.inf}
    axes = [Axis("a", lambda form: [{"at": 1}, {"at": 2}])]
    best, _ = descend({"a": {"at": 0}}, axes, lambda setting: seconds[setting["a"]["at"]])
    assert best == {"a": {"at": 0}}


def test_a_setting_is_timed_once_also_if_it_cannot_run():
    calls, known = [], {}

    def timer(setting):
        calls.append(setting)
        return math.inf if setting["a"]["at"] else 2.0

    remembered = Remembered(timer, known, lambda: None)
    for at in (0, 1, 0, 1):
        assert remembered({"a": {"at": at}}) == (math.inf if at else 2.0)
    assert len(calls) == 2
    assert json.loads(json.dumps(known)) == known


# ---- what is kept


def test_the_optimum_is_kept_and_serves_at_once(kept):
    steps = FakeSteps()
    gain = tune_step(steps, 8, kept, silent, again=False)
    assert (gain.before_s, gain.after_s) == pytest.approx((1.2, 1.0))
    assert len(steps.compiled) == 1
    assert len(steps.compiled[0]) == 1 + 8 + 2
    document = load(kept.file, HERE)
    assert document["linear"]["linear_residual"]["512x1024"] == {"16": BEST[DOWN]}
    assert document["trials"] == {}
    choose = forms.default()
    assert choose("linear_residual", 8, 512, 1024) == forms.Swapped(64, 128, 4, 4)
    assert choose("linear_norm_residual", 2, 512, 1024) == forms.Swapped(64, 128, 4, 4)
    for rows in (1, 17, 32):  # other buckets are as they were
        assert choose("linear_residual", rows, 512, 1024) != forms.Swapped(64, 128, 4, 4)


def test_a_search_that_ended_is_not_repeated_unless_asked(kept):
    first = tune_step(FakeSteps(), 8, kept, silent, again=False)
    idle = FakeSteps()
    found = tune_step(idle, 8, Kept(load(kept.file, HERE), kept.file), silent, again=False)
    assert found == replace(first, known=True)
    assert idle.timed == []
    busy = FakeSteps()
    assert not tune_step(busy, 8, kept, silent, again=True).known
    assert busy.timed


@pytest.mark.parametrize("after", [1, 5, 12, 20])
def test_an_interrupted_search_goes_on_where_it_was(kept, after):
    whole = FakeSteps()
    tune_step(whole, 8, Kept(empty(HERE), kept.file.with_name("whole")), silent, again=False)
    cut = FakeSteps(limit=after)
    with pytest.raises(KeyboardInterrupt):
        tune_step(cut, 8, kept, silent, again=False)
    rest = FakeSteps()
    again = Kept(load(kept.file, HERE), kept.file)
    gain = tune_step(rest, 8, again, silent, again=False)
    assert gain.after_s == pytest.approx(1.0)
    known = min(after, len(whole.timed) - 6)  # the last timings confirm, and are not remembered
    assert len(rest.timed) == len(whole.timed) - known


def test_luck_is_not_kept(kept):
    class Lucky(FakeSteps):
        def seconds(self, rows, setting):
            super().seconds(rows, setting)
            return 0.5 if len(self.timed) == 4 else 1.0

    gain = tune_step(Lucky(), 8, kept, silent, again=False)
    assert gain.before_s == gain.after_s == 1.0
    start = FakeSteps().start(8)
    assert load(kept.file, HERE)["linear"]["norm_linear"]["768x512"]["16"] == start[QKV]


def test_a_step_that_cannot_run_at_all_is_an_error(kept):
    class Broken(FakeSteps):
        def seconds(self, rows, setting):
            return math.inf

    with pytest.raises(RtpError, match="cannot run"):
        tune_step(Broken(), 8, kept, silent, again=False)


# ---- files


def test_a_file_is_named_by_all_conditions(tmp_path):
    others = [
        replace(HERE, **{name: "other"})
        for name in ("card", "driver", "triton", "torch", "kernels")
    ]
    assert len({tuned_file.tuned_file(one, tmp_path) for one in (HERE, *others)}) == 6


def test_nothing_tuned_is_no_warning(tmp_path, caplog):
    assert load(tmp_path / "gpu-nvidia-h200-x.json", HERE) is None
    assert caplog.records == []


def test_forms_of_another_triton_are_told(tmp_path, caplog):
    older = replace(HERE, triton="3.5.0")
    save(tuned_file.tuned_file(older, tmp_path), empty(older))
    assert load(tuned_file.tuned_file(HERE, tmp_path), HERE) is None
    assert "another driver, triton, torch" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-9], "cannot be read"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "its schema is 2, not 1"),
        (lambda text: text.replace("580.65", "570.1"), "its driver is '570.1', not '580.65'"),
        (lambda text: "[]", "it does not hold schema, card"),
        (lambda text: text.replace('"linear": {}', '"linear": 7'), "are not all objects"),
    ],
)
def test_a_file_that_is_not_sound_is_left_aside(tmp_path, caplog, change, words):
    file = tuned_file.tuned_file(HERE, tmp_path)
    save(file, empty(HERE))
    file.write_text(change(file.read_text()))
    assert load(file, HERE) is None
    assert words in caplog.text


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("linear", {"head": {"8x8": {"16": {**swapped(64), "block_n": 0}}}}, "block_n is 0"),
        ("linear", {"head": {"8x8": {"16": {**swapped(64), "block_k": 48}}}}, "no power of two"),
        ("linear", {"head": {"8x8": {"16": {"form": "fast"}}}}, "is no form"),
        ("linear", {"head": {"8x8": {"5": swapped(64)}}}, "limits are"),
        ("linear", {"head": 3}, "head: 3 is no object"),
        ("attention", {"4x2x64": {"8x1/2048": {"tile": 64}}}, "is not tile, warps"),
    ],
)
def test_forms_that_no_kernel_could_serve_are_left_aside(
    tmp_path, caplog, monkeypatch, part, value, words
):
    monkeypatch.setattr(tuned_file, "cache_dir", lambda: tmp_path)
    file = tuned_file.tuned_file(HERE)
    save(file, {**empty(HERE), part: value})
    assert tuned_kernels.tuned_here(HERE) is None
    assert words in caplog.text


def test_the_log_and_explain_tell_tuned_forms(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(tuned_file, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(tuned_kernels, "conditions_here", lambda: HERE)
    assert "forms as shipped" in tuned_kernels.tuned_words("cuda", "bfloat16")
    document = {**empty(HERE), "linear": {"head": {"8x8": {"16": swapped(64)}}}}
    save(tuned_file.tuned_file(HERE), document)
    with caplog.at_level(logging.INFO):
        tuned_kernels.use_tuned("cuda", "bfloat16")
    assert "tuned_forms count=1" in caplog.text
    assert forms.default()("head", 4, 8, 8) == forms.Swapped(64, 64, 4)
    assert "1 forms tuned on this machine" in tuned_kernels.tuned_words("cuda", "bfloat16")
    for device, dtype in (("cpu", "bfloat16"), ("cuda", "float32")):
        assert tuned_kernels.tuned_words(device, dtype) == ""
        tuned_kernels.use_tuned(device, dtype)


def test_a_cache_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RtpError, match="RTP_CACHE_DIR"):
        Kept(empty(HERE), blocked / "tuned.json").save()


def test_the_driver_is_read_from_the_kernel_module(tmp_path):
    file = tmp_path / "version"
    assert driver_version(file) == "unknown"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\n")
    assert driver_version(file) == "580.65.06"


# ---- the command


def test_without_a_gpu_the_command_says_so(capsys):
    assert main(["tune", "demo", "--device", "cpu"]) == 1
    assert "rtp tune times kernels of a GPU: model.device is cpu" in capsys.readouterr().err


@pytest.mark.parametrize("batches", ["0", "257", "1,x", ""])
def test_batches_out_of_bounds_are_refused(capsys, batches):
    with pytest.raises(SystemExit):
        main(["tune", "demo", "--batches", batches])
    assert "numbers from 1 to 256" in capsys.readouterr().err
