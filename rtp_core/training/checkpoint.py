"""A training that was stopped goes on as if it had not been: heads, optimizers, place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from rtp_core.training.tensor_file import metadata_of, read_tensors, save_tensors

FILE = "checkpoint.safetensors"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Told(NamedTuple):
    """What was seen of a training; `agreement` by depth with the target's best tokens."""

    seconds: float
    step: int
    method: str
    loss: float
    agreement: list[float]


@dataclass(slots=True)
class Place:
    """Where a training is, and what was seen on the way."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    curve: list[Told] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Trained:
    """A module and the optimizer of all its parameters."""

    module: torch.nn.Module
    optimizer: torch.optim.AdamW


def save_checkpoint(folder: Path, place: Place, heads: Mapping[str, Trained]) -> None:
    """Whole, or the one before stays."""
    tensors: dict[str, torch.Tensor] = {}
    for method, trained in heads.items():
        for name, value in trained.module.state_dict().items():
            tensors[f"{method}.module.{name}"] = value
        for name, parameter in trained.module.named_parameters():
            for moment, value in trained.optimizer.state[parameter].items():
                tensors[f"{method}.{moment}.{name}"] = value
    save_tensors(folder / FILE, tensors, {"place": json.dumps(asdict(place))})


def load_checkpoint(folder: Path, heads: Mapping[str, Trained]) -> Place:
    """Fill heads and optimizers; from the beginning where nothing was saved."""
    path = folder / FILE
    if not path.is_file():
        return Place()
    tensors = read_tensors(path)
    for method, trained in heads.items():
        prefix = f"{method}.module."
        state = {
            name.removeprefix(prefix): one
            for name, one in tensors.items()
            if name.startswith(prefix)
        }
        trained.module.load_state_dict(state)
        for name, parameter in trained.module.named_parameters():
            moments = {one: tensors.get(f"{method}.{one}.{name}") for one in _MOMENTS}
            trained.optimizer.state[parameter] = {
                one: value.to(parameter.device)
                for one, value in moments.items()
                if value is not None
            }
    saved = json.loads(metadata_of(path)["place"])
    return Place(**{**saved, "curve": [Told(*one) for one in saved["curve"]]})
