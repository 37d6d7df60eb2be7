"""Where the tensors of heads are, in the layouts of Medusa's authors and of vLLM.

The authors' files name block j of head i ``{i}.{j}.linear``, and its vocabulary ``{i}.{blocks}``;
whole checkpoints put ``medusa_head.`` before. vLLM has ``blocks.{i}.layers.{j}`` and
``lm_heads.{i}``. Published configurations under-report heads, so tensors are counted. Heads
without a vocabulary of their own share the model's: rows of it, where `token_map` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rtp_core.api import ModelSpec, StoredTensors
from rtp_core.errors import ConfigError, ModelError
from rtp_spec_medusa.shipped import FIELD

_PREFIXES = ("", "medusa_head.")
_REMEDY = "use heads that were trained for this model"
_WHOLE = "download the heads again, whole"


@dataclass(frozen=True, slots=True)
class Block:
    """x + silu(linear(x)); `bias` None for none."""

    weight: str
    bias: str | None


@dataclass(frozen=True, slots=True)
class Layout:
    """`blocks` and the matrix (None: the model's) of each head; `token_map`, if there is one."""

    blocks: tuple[tuple[Block, ...], ...]
    vocabularies: tuple[str | None, ...]
    token_map: str | None


def read_layout(files: StoredTensors, model: ModelSpec, any_model: bool) -> Layout:
    """Raises ModelError for what is missing or misshapen, ConfigError for another model's."""
    block_of, vocabulary_of = _names(files)
    blocks = _counted(files, block_of)
    vocabularies = tuple(
        vocabulary_of(head, len(own)) if vocabulary_of(head, len(own)) in files.tensors else None
        for head, own in enumerate(blocks)
    )
    token_map = "token_map" if "token_map" in files.tensors else None
    layout = Layout(blocks, vocabularies, token_map)
    _check_model(files, layout, model, any_model)
    _check_shapes(files, layout, model)
    return layout


def token_ids(files: StoredTensors, layout: Layout, model: ModelSpec) -> np.ndarray | None:
    """int64: the model's id of each of the heads' tokens; None where they are the same.

    Raises ModelError for ids outside the vocabulary.
    """
    if layout.token_map is None:
        return None
    ids = files.read(layout.token_map, "numpy").astype(np.int64)
    if ids.min() < 0 or ids.max() >= model.vocab_size or len(np.unique(ids)) != len(ids):
        raise ModelError(
            f"{files.name}: token_map holds {ids.min()} to {ids.max()}, or one id twice; the "
            f"vocabulary is 0 to {model.vocab_size - 1}",
            remedy=_REMEDY,
        )
    return ids


Namer = Callable[[int, int], str]


def _names(files: StoredTensors) -> tuple[Namer, Namer]:
    """Names of block j of head i, without ``.weight``, and of head i's vocabulary."""
    if "blocks.0.layers.0.weight" in files.tensors:
        return "blocks.{}.layers.{}".format, "lm_heads.{}.weight".format
    for prefix in _PREFIXES:
        if f"{prefix}0.0.linear.weight" in files.tensors:
            return f"{prefix}{{}}.{{}}.linear".format, f"{prefix}{{}}.{{}}.weight".format
    raise ModelError(
        f"{files.name} has no tensor 0.0.linear.weight or blocks.0.layers.0.weight",
        remedy="these are no Medusa heads; use other ones",
    )


def _counted(files: StoredTensors, block_of: Namer) -> tuple[tuple[Block, ...], ...]:
    heads: list[tuple[Block, ...]] = []
    while True:
        own: list[Block] = []
        while f"{block_of(len(heads), len(own))}.weight" in files.tensors:
            name = block_of(len(heads), len(own))
            bias = f"{name}.bias"
            own.append(Block(f"{name}.weight", bias if bias in files.tensors else None))
        if not own:
            return tuple(heads)
        heads.append(tuple(own))


def _check_model(files: StoredTensors, layout: Layout, model: ModelSpec, any_model: bool) -> None:
    shape = files.shape(layout.blocks[0][0].weight)
    if shape != (model.hidden_size, model.hidden_size):
        raise ConfigError(
            FIELD,
            f"{files.name} was made for states of {shape[-1] if shape else 0} numbers, the model "
            f"has {model.hidden_size}",
            remedy=_REMEDY,
        )
    vocab = files.config.get("vocab_size", model.vocab_size)
    if vocab != model.vocab_size:
        raise ConfigError(
            FIELD,
            f"{files.name} was made for a vocabulary of {vocab} tokens, the model has "
            f"{model.vocab_size}",
            remedy=_REMEDY,
        )
    found, identity = files.config.get("target_fingerprint"), model.fingerprint.partition(":")[0]
    if found not in (None, identity) and not any_model:
        raise ConfigError(
            FIELD,
            f"{files.name} was trained for the weights {found}, these are {identity}",
            remedy=f"{_REMEDY}, or set plugins.spec_medusa.any_model = true",
        )


def _check_shapes(files: StoredTensors, layout: Layout, model: ModelSpec) -> None:
    hidden = model.hidden_size
    size = model.vocab_size
    if layout.token_map is not None:
        (size,) = files.shape(layout.token_map) or (0,)
    expected: dict[str, tuple[int, ...]] = {}
    for own in layout.blocks:
        if len(own) != len(layout.blocks[0]):
            raise ModelError(f"{files.name}: heads have unequal numbers of blocks", remedy=_WHOLE)
        for block in own:
            expected[block.weight] = (hidden, hidden)
            if block.bias is not None:
                expected[block.bias] = (hidden,)
    expected |= {name: (size, hidden) for name in layout.vocabularies if name is not None}
    for name, shape in expected.items():
        if files.shape(name) != shape:
            raise ModelError(
                f"{files.name}: {name} has shape {list(files.shape(name) or ())}, expected "
                f"{list(shape)}",
                remedy=_WHOLE,
            )
