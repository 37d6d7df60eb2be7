"""Help is short and complete: a line a flag, and everything when asked."""

from __future__ import annotations

import re

import pytest

from rtp_core.cli.help import WIDEST, brief_values, first_clause
from rtp_core.cli.main import main
from rtp_core.config.rules import Rule, Setting, settings_of
from rtp_core.config.schema import SECTIONS

SETTINGS = [
    (section, setting)
    for section, kind in SECTIONS.items()
    for setting in settings_of(kind).values()
]


@pytest.fixture
def told(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def tell(*arguments, status=0):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        assert ended.value.code == status, err
        return err if status else out

    return tell


def test_serve_tells_each_flag_in_one_line_with_its_default(told):
    lines = told("serve", "--help").splitlines()
    assert max(map(len, lines)) <= WIDEST
    assert len(lines) < 75
    for section, setting in SETTINGS:
        if setting.rule.flag in (None, "--model"):
            continue
        flag = setting.rule.flag.removeprefix("--")
        (line,) = [one for one in lines if re.match(rf"  --(\[no-\])?{flag} ", one)]
        assert line.endswith("]"), (section, line)


def test_serve_names_every_setting_without_a_flag_in_its_section(told):
    text = told("serve", "--help")
    for section, setting in SETTINGS:
        part = text.partition(f"\n[{section}]\n")[2].partition("\n\n")[0]
        assert part
        if setting.rule.flag is None:
            assert re.search(rf"\b{setting.key}\b", part), (section, setting.key)


def test_ranges_and_what_unset_means_stand_in_the_line(told):
    text = told("serve", "--help")
    for words in (
        "[8000; 0 to 65535]",
        "[64 on a CPU, 512 on a GPU; >= 1]",
        "[auto | float32 | bfloat16]",
        "[model.path]",
        "[off]",
        "form of the checkpoint [auto | safetensors | gguf | dummy]\n",
    ):
        assert words in text


@pytest.mark.parametrize(
    "spelled", [("--help", "kv"), ("-h", "kv"), ("--help=kv",), ("-h", "[kv]")]
)
def test_a_section_is_told_in_full(told, spelled):
    text = " ".join(told("serve", *spelled).split())
    for setting in settings_of(SECTIONS["kv"]).values():
        assert setting.rule.doc in text
        assert f"RTP_KV__{setting.key.upper()}" in text
        if setting.rule.bounds:
            assert f"allowed: {setting.rule.bounds}" in text
    assert "RTP_MODEL__" not in text


def test_all_is_everything(told):
    text = " ".join(told("serve", "--help", "all").split())
    for section, setting in SETTINGS:
        assert setting.rule.doc in text
        assert f"RTP_{section}__{setting.key}".upper() in text
    for flag in ("--gpu-memory-utilization", "--trust-remote-code", "--print-config", "--set"):
        assert flag in text


def test_other_commands_tell_their_own_flags_first_and_only_name_the_engines(told):
    for command, own in (
        (("bench", "serve"), "--request-rate"),
        (("bench", "trace"), "--time-scale"),
        (("run",), "--temperature"),
        (("tune",), "--batches"),
    ):
        text = told(*command, "--help")
        assert own in text
        assert "\n  --block-size" not in text
        assert "As for rtp serve" in text
        assert "kv.watermark" in told(*command, "--help", "kv")


def test_what_is_no_section_is_answered_with_the_nearest(told):
    assert "'kvs' is no section (did you mean 'kv'?)" in told("serve", "--help", "kvs", status=2)
    assert "known: all, kv, " in told("serve", "--help", "demo", status=2)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (("serve", "--max-num-seq", "4"), "--max-num-seqs"),
        (("serve", "demo", "--block_size=4"), "--block-size"),
        (("explain", "--gpu-memory-utilisation", "0.5"), "--gpu-memory-utilization"),
        (("bench", "serve", "--num-prompt", "4"), "--num-prompts"),
        (("run", "demo", "hi", "--temprature", "4"), "--temperature"),
    ],
)
def test_a_wrong_flag_is_answered_with_the_nearest_in_two_lines(told, given, meant):
    text = told(*given, status=2)
    assert f"(did you mean {meant!r}?)" in text
    assert len(text.splitlines()) == 2


def test_what_resembles_no_flag_has_no_hint(told):
    text = told("serve", "demo", "--qqqqqq", status=2)
    assert "unrecognized arguments: --qqqqqq\n" in text
    assert "extra" in told("serve", "demo", "extra", status=2)


@pytest.mark.parametrize(
    ("doc", "wanted"),
    [
        ("Where to listen; 0 takes any.", "Where to listen"),
        ("Precision: auto is best.", "Precision"),
        ("Value of model.path. More.", "Value of model.path"),
        ("An address as http://host:80/x", "An address as http://host:80/x"),
        ("Plain", "Plain"),
    ],
)
def test_the_first_clause(doc, wanted):
    assert first_clause(doc) == wanted


def test_many_choices_are_cut_to_the_room_and_the_default_stays():
    setting = Setting("x", str, "c", Rule("doc", choices=tuple("abcdefgh")))
    assert brief_values(setting) == "c | a | b | d | e | f | g | h"
    assert brief_values(setting, 20) == "c | a | b | d | ..."
    assert brief_values(setting, 1) == "c | ..."


def test_a_narrow_terminal_wraps_the_full_text(told, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, told("serve", "--help", "kv").splitlines())) <= 60
