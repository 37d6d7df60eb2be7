"""What `rtp train-draft` was asked for, held against the model and against work begun before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.prepare import Prepared, prepare
from rtp_core.errors import ConfigError
from rtp_core.training.identity import begin_or_continue
from rtp_core.training.settings import DataSettings, TrainSettings
from rtp_core.training.target import check_trainable

_STEP_TOKENS = {"cpu": 4096, "cuda": 24576}
_WRITER_MEMORY = 0.5
"""Share of a GPU: text after text needs little cache, and what is left need not be fought for."""
_OUT, _DATA = "--out", "--data"


@dataclass(frozen=True, slots=True)
class Order:
    """`data` None is a folder in `out`; `command` is only noted."""

    config: EngineConfig
    methods: tuple[str, ...]
    out: Path
    train: TrainSettings
    texts: DataSettings
    data: Path | None = None
    resume: bool = False
    max_shard_bytes: int | None = None
    command: str = ""

    @property
    def work(self) -> Path:
        """Where the training keeps its place."""
        return self.out / "training"

    @property
    def text_folder(self) -> Path:
        """Where the texts are."""
        return self.data or self.out / "data"


def check_out(order: Order) -> None:
    """Before anything is read. Raises ConfigError."""
    out = order.out
    if out.exists() and not out.is_dir():
        raise ConfigError(_OUT, f"{out} is a file", remedy="choose another name")
    if not order.resume and out.is_dir() and any(out.iterdir()):
        raise ConfigError(
            _OUT,
            f"{out} is not empty",
            remedy="pass --resume to go on with a training there, or choose another directory",
        )


def prepare_model(order: Order) -> tuple[Order, Prepared]:
    """The model's description, and the order with what the device decides filled in.

    Reads no weights. Raises ConfigError and ModelError for what no head can be trained for.
    """
    config = order.config
    memory = config.kv.memory or _WRITER_MEMORY
    model = replace(config.model, max_model_len=order.texts.max_length)
    prepared = prepare(replace(config, model=model))
    check_trainable(prepared)
    device = prepared.context.device
    if device == "cuda":
        config = replace(config, kv=replace(config.kv, memory=memory))
    step_tokens = order.train.step_tokens or _STEP_TOKENS[device]
    train = replace(order.train, step_tokens=step_tokens)
    return replace(order, config=replace(config, model=model), train=train), prepared


def claim_folders(order: Order, prepared: Prepared) -> None:
    """Raises ConfigError where a folder holds the work of another model or other settings."""
    texts = _record_of_texts(order, prepared)
    training = {**texts, **order.train.record(), "methods": list(order.methods)}
    begin_or_continue(order.work, _OUT, training)
    begin_or_continue(order.text_folder, _DATA, texts)


def origin(order: Order, prepared: Prepared) -> dict[str, Any]:
    """What a head says of where it comes from."""
    return {
        "model": order.config.model.path,
        "fingerprint": prepared.checkpoint.content_id,
        "architecture": prepared.spec.architecture,
        "command": order.command,
        "seed": order.train.seed,
    }


def _record_of_texts(order: Order, prepared: Prepared) -> Mapping[str, Any]:
    texts = {f"texts.{name}": value for name, value in order.texts.record().items()}
    fingerprint = prepared.checkpoint.content_id
    return {"fingerprint": fingerprint, "dtype": prepared.spec.dtype, **texts}
