"""Which device a model runs on."""

from __future__ import annotations

import threading

import pytest
import torch

from rtp_core.engine import devices
from rtp_core.engine.devices import open_early, pick_device, unusable_gpu
from rtp_core.errors import ConfigError


@pytest.fixture
def card(monkeypatch):
    """A GPU of any capability, and a machine with a C compiler."""

    def put(capability=(9, 0), compiler="/usr/bin/cc"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Card")
        monkeypatch.setattr(devices.shutil, "which", lambda name: compiler)

    return put


def test_a_usable_card_is_taken(card):
    card()
    assert pick_device("auto") == pick_device("cuda") == "cuda"
    assert pick_device("cpu") == "cpu"
    assert unusable_gpu() is None


@pytest.mark.parametrize(
    ("state", "words", "remedy"),
    [
        ({"capability": (7, 5)}, "Card has compute capability 7.5, 8.0 is needed", "newer GPU"),
        ({"compiler": None}, "Triton needs a C compiler", "apt-get install gcc"),
    ],
)
def test_a_card_that_cannot_serve_is_named(card, state, words, remedy):
    card(**state)
    assert pick_device("auto") == "cpu"
    with pytest.raises(ConfigError, match=r"model\.device: cuda is not usable") as caught:
        pick_device("cuda")
    assert words in str(caught.value)
    assert remedy in str(caught.value)


def test_no_card_is_no_error_unless_it_was_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    with pytest.raises(ConfigError, match="cuda is not usable"):
        pick_device("cuda")


def test_a_device_that_fails_early_is_left_to_its_first_use(monkeypatch):
    """Neither the caller nor standard error hears of it."""
    asked, told = threading.Event(), []

    def fail(*_, device):
        asked.set()
        raise RuntimeError(f"no {device}")

    monkeypatch.setattr(torch, "empty", fail)
    monkeypatch.setattr(threading, "excepthook", told.append)
    open_early("cpu")
    assert not asked.is_set()
    open_early("cuda")
    assert asked.wait(5)
    for thread in threading.enumerate():
        if thread.name == "rtp-device":
            thread.join(5)
    assert told == []
