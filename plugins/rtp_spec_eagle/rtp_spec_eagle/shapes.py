"""Does a head fit the model, and are its tensors what its configuration says? From headers."""

from __future__ import annotations

import numpy as np

from rtp_core.api import ModelSpec, StoredTensors
from rtp_core.errors import ConfigError, ModelError
from rtp_spec_eagle.description import Description
from rtp_spec_eagle.names import Names
from rtp_spec_eagle.shipped import FIELD

_REMEDY = "use a head that was trained for this model"


def check_model(files: StoredTensors, head: Description, model: ModelSpec, any_model: bool) -> None:
    """Raises ConfigError for a head of another model."""
    for what, of_head, of_model in (
        ("states of {} numbers", head.target_hidden_size, model.hidden_size),
        ("a vocabulary of {} tokens", head.vocab_size, model.vocab_size),
    ):
        if of_head != of_model:
            raise ConfigError(
                FIELD,
                f"{files.name} was made for {what.format(of_head)}, the model has {of_model}",
                remedy=_REMEDY,
            )
    identity = model.fingerprint.partition(":")[0]
    if head.fingerprint not in (None, identity) and not any_model:
        raise ConfigError(
            FIELD,
            f"{files.name} was trained for the weights {head.fingerprint}, these are {identity}",
            remedy=f"{_REMEDY}, or set plugins.spec_eagle.any_model = true",
        )


def check_tensors(files: StoredTensors, head: Description) -> None:
    """Raises ModelError for a tensor that is missing or has another shape."""
    for name, shape in _expected(files, head).items():
        found = files.shape(name)
        if found is None:
            raise ModelError(
                f"{files.name} has no tensor {name}", remedy="download the head again, whole"
            )
        if found != shape:
            raise ModelError(
                f"{files.name}: {name} has shape {list(found)}, its config.json says {list(shape)}",
                remedy="use tensors and configuration of one head",
            )


def target_ids(files: StoredTensors, head: Description) -> np.ndarray | None:
    """int64 [draft_vocab_size]: the model's id of each of the head's. None: they are the same.

    `d2t` holds the difference of both. Raises ModelError for ids outside the vocabulary.
    """
    if head.draft_vocab_size is None:
        return None
    ids = files.read("d2t", "numpy").astype(np.int64) + np.arange(head.draft_vocab_size)
    if ids.min() < 0 or ids.max() >= head.vocab_size:
        raise ModelError(
            f"{files.name}: d2t leads to token {ids.min() if ids.min() < 0 else ids.max()}, the "
            f"vocabulary is 0 to {head.vocab_size - 1}",
            remedy="d2t holds offsets: target id = draft id + d2t[draft id]",
        )
    if len(np.unique(ids)) != len(ids):
        raise ModelError(
            f"{files.name}: d2t leads twice to one token",
            remedy="d2t holds offsets: target id = draft id + d2t[draft id]",
        )
    return ids


def _expected(files: StoredTensors, head: Description) -> dict[str, tuple[int, ...]]:
    names, hidden = Names(files.tensors), head.hidden_size
    query, key = head.num_heads * head.head_dim, head.num_kv_heads * head.head_dim
    width = 2 * hidden if head.version == 3 else hidden
    shapes = {
        names.layer("self_attn.q_proj.weight"): (query, width),
        names.layer("self_attn.k_proj.weight"): (key, width),
        names.layer("self_attn.v_proj.weight"): (key, width),
        names.layer("self_attn.o_proj.weight"): (hidden, query),
        names.layer("mlp.gate_proj.weight"): (head.intermediate_size, hidden),
        names.layer("mlp.up_proj.weight"): (head.intermediate_size, hidden),
        names.layer("mlp.down_proj.weight"): (hidden, head.intermediate_size),
        names.layer("post_attention_layernorm.weight"): (hidden,),
    }
    return shapes | (_of_three(files, head, names) if head.version == 3 else _of_one(head))


def _of_three(files: StoredTensors, head: Description, names: Names) -> dict[str, tuple[int, ...]]:
    hidden, fused = head.hidden_size, len(head.capture_layers) * head.target_hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "fc.weight": (hidden, fused),
        "norm.weight": (hidden,),
        names.layer("input_layernorm.weight"): (hidden,),
        names.layer("hidden_norm.weight"): (hidden,),
    }
    if head.draft_vocab_size is not None:
        shapes["lm_head.weight"] = (head.draft_vocab_size, hidden)
        shapes["d2t"] = (head.draft_vocab_size,)
    elif "lm_head.weight" in files.tensors:
        shapes["lm_head.weight"] = (head.vocab_size, hidden)
    if head.norm_before_fc:
        shapes["input_norm.weight"] = (fused,)
    if head.fc_norm:
        for index in range(len(head.capture_layers)):
            shapes[names.fc_norm(index)] = (head.target_hidden_size,)
    if hidden != head.target_hidden_size:
        shapes["embed_tokens.weight"] = (head.vocab_size, hidden)
    return shapes


def _of_one(head: Description) -> dict[str, tuple[int, ...]]:
    return {"fc.weight": (head.hidden_size, 2 * head.hidden_size)}
