"""`rtp train-draft`: write texts, train heads, measure them.

Each part goes on where it was left. A training that counts steps ends the same whether it was
stopped or not; one that a clock ends has as many steps as there was time for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from rtp_core.engine.assemble import write_tokenizer_files
from rtp_core.engine.prepare import Prepared
from rtp_core.training.chat_form import ChatForm
from rtp_core.training.data import TextData, Told
from rtp_core.training.measure import measure
from rtp_core.training.methods import load_methods
from rtp_core.training.order import Order, check_out, claim_folders, origin, prepare_model
from rtp_core.training.school import School
from rtp_core.training.target import Target, load_target
from rtp_core.training.tensor_file import save_text
from rtp_core.training.writer import open_writer

_TEXTS_SHARE, _MEASURING_FROM = 0.25, 0.9
"""Of `--minutes`: what writing may take, and after which only measuring is left."""
_CLOCK = "clock.json"
_PARTS = 1000
"""Progress of a training is told in thousandths."""


def train_draft(order: Order, told: Told) -> dict[str, dict[str, Any]]:
    """Heads in folders of `order.out` named like their methods; returns what they are worth.

    `told` is asked for a progress of each part. Raises ConfigError, ResolutionError,
    PluginError, ModelError, WeightLoadError or CapacityError.
    """
    began_s = time.monotonic()
    check_out(order)
    order, prepared = prepare_model(order)
    methods = load_methods(order.methods, prepared.context)
    claim_folders(order, prepared)
    data = _texts(order, prepared, told)
    target = _load(prepared, told)
    school = School(
        target,
        methods,
        order.train,
        order.out,
        origin(order, prepared),
        order.max_shard_bytes,
    )
    school.train(
        data.train_texts(),
        data.form.tokenizer.special_ids,
        order.work,
        _seconds(order, began_s),
        _in_parts(told("training", _PARTS)),
    )
    return measure(target, methods, order.out, data.held_out_texts())


def _texts(order: Order, prepared: Prepared, told: Told) -> TextData:
    form = ChatForm(write_tokenizer_files(prepared), order.config.model.chat_template)
    data = TextData(order.text_folder, order.texts, form)
    if not data.done:
        minutes = order.train.minutes
        seconds = None if minutes is None else _TEXTS_SHARE * 60 * minutes
        data.make(lambda: open_writer(order.config, prepared), told, seconds)
    return data


def _load(prepared: Prepared, told: Told) -> Target:
    advance, before = told("loading", prepared.plan.num_bytes), 0

    def progress(done: int, _: int) -> None:
        nonlocal before
        advance(done - before)
        before = done

    return load_target(prepared, progress)


def _seconds(order: Order, began_s: float) -> float | None:
    """What is left for training; one that is gone on with keeps what it had."""
    minutes, file = order.train.minutes, order.work / _CLOCK
    if minutes is None:
        return None
    if not file.is_file():
        left_s = _MEASURING_FROM * 60 * minutes - (time.monotonic() - began_s)
        save_text(file, json.dumps({"seconds": max(1.0, left_s)}) + "\n")
    return json.loads(file.read_text())["seconds"]


def _in_parts(advance: Callable[[int], None]) -> Callable[[float], None]:
    done = 0

    def progress(share: float) -> None:
        nonlocal done
        now = min(_PARTS, int(share * _PARTS))
        advance(now - done)
        done = now

    return progress
