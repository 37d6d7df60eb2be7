"""Questions of a chat: patterns times topics."""

from __future__ import annotations

import random
import tomllib
from importlib import resources


def chat_prompts(rng: random.Random) -> tuple[list[str], list[str]]:
    """Prompts to train on, and others to measure with."""
    text = (resources.files("rtp_core.training") / "chat_prompts.toml").read_text("utf-8")
    table = tomllib.loads(text)
    topics = table["topics"]
    train = [
        pattern.format(t=topic, u=rng.choice(topics))
        for topic in topics
        for pattern in table["patterns"]
    ]
    return train, table["held_out"]
