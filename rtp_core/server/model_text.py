"""Tokenizer, chat template and formats of the model served, read from its files."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.contract import ModelInfo
from rtp_core.observe.timeline import process_started_s
from rtp_core.server.answer_formats import load_formats
from rtp_core.server.prompts import PromptRoom
from rtp_core.text.chat_template import ChatTemplate
from rtp_core.text.tokenizer import Tokenizer


def load_room(info: ModelInfo, config: EngineConfig, threads: int) -> PromptRoom:
    """Slow, not for the event loop. Ends the start's timeline."""
    directory = Path(info.tokenizer_dir)
    template = ChatTemplate.load(directory, config.model.chat_template)
    tokenizer = Tokenizer.load(directory)
    formats = load_formats(config, template)
    start = info.start.after("process", process_started_s()).until("server", time.monotonic())
    return PromptRoom(tokenizer, template, replace(info, start=start), threads, formats)
