"""GGUF metadata and names in Hugging Face's vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rtp_core.api import TensorInfo
from rtp_core.errors import ModelError
from rtp_core.loading.gguf import GGUFFile, GGUFTensor
from rtp_core.loading.gguf_architectures.architecture import TOP
from rtp_core.loading.gguf_architectures.registry import find_architecture
from rtp_core.loading.gguf_honoured import check_honoured
from rtp_core.loading.gguf_metadata import Metadata
from rtp_core.loading.gguf_rope import FREQUENCIES, rope_parameters
from rtp_core.loading.gguf_vocabulary import end_ids, vocabulary_size

_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_EXPERT = "{}"


def hugging_face_config(file: GGUFFile) -> dict[str, Any]:
    """config.json of the model.

    Raises ModelError naming what is missing, wrong, or would not be honoured.
    """
    metadata = Metadata(file)
    architecture = find_architecture(metadata)
    check_honoured(metadata, architecture)
    heads, size = metadata.count("attention.head_count"), vocabulary_size(metadata)
    config: dict[str, Any] = {
        "num_hidden_layers": metadata.layers(),
        "hidden_size": metadata.count("embedding_length"),
        "intermediate_size": _width(metadata),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.count("attention.head_count_kv", heads),
        "head_dim": metadata.head_size(),
        "max_position_embeddings": metadata.count("context_length"),
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon"),
        "rope_parameters": rope_parameters(metadata),
        "tie_word_embeddings": "output.weight" not in metadata.tensors,
        "vocab_size": size,
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in metadata.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in metadata.tensors,
        "eos_token_id": end_ids(metadata, size),
        **architecture.describe(metadata),
    }
    if architecture.interleaved and "partial_rotary_factor" in config["rope_parameters"]:
        turned = metadata.count("rope.dimension_count")
        metadata.refuse("rope.dimension_count", turned, f"the head size {config['head_dim']}")
    bos = metadata.token_id("bos", size)
    return config if bos is None else {**config, "bos_token_id": bos}


def _width(metadata: Metadata) -> int:
    """Of the feed-forward part; a file with experts only may leave it out."""
    key = "expert_feed_forward_length"
    return metadata.count("feed_forward_length", metadata.get(key, None) and metadata.count(key))


def hugging_face_tensors(file: GGUFFile) -> dict[str, TensorInfo]:
    """The directory under Hugging Face names, experts one by one.

    What the converter did to the values is marked for the sink to undo: the row order of q and
    k, what was added to norms.
    """
    metadata = Metadata(file)
    renamer = _Renamer.of(metadata)
    return {
        info.name: info
        for tensor in file.tensors
        if tensor.name != FREQUENCIES
        for info in renamer.rename(tensor)
    }


@dataclass(frozen=True, slots=True)
class _Renamer:
    """`heads` of the parts whose rows are reordered; `experts` in a stacked tensor."""

    metadata: Metadata
    layer: dict[str, str]
    heads: dict[str, int]
    experts: int
    norm_offset: float

    @classmethod
    def of(cls, metadata: Metadata) -> _Renamer:
        architecture = find_architecture(metadata)
        heads = metadata.count("attention.head_count")
        kv_heads = metadata.count("attention.head_count_kv", heads)
        layer = dict(architecture.layer)
        stacked = any(_EXPERT in part for part in layer.values())
        return cls(
            metadata,
            layer,
            {"attn_q": heads, "attn_k": kv_heads} if architecture.interleaved else {},
            metadata.experts() if stacked else 0,
            architecture.norm_offset,
        )

    def rename(self, tensor: GGUFTensor) -> Iterator[TensorInfo]:
        if tensor.name in TOP:
            yield self._info(tensor, TOP[tensor.name], "")
            return
        match = _BLOCK.fullmatch(tensor.name)
        if match is None or match[2] not in self.layer:
            raise ModelError(
                f"{self.metadata.path}: GGUF tensor {tensor.name} is not known for the "
                f"architecture {self.metadata.architecture}"
            )
        name = f"model.layers.{match[1]}.{self.layer[match[2]]}.{match[3]}"
        if _EXPERT in name:
            yield from self._apart(tensor, name)
        else:
            yield self._info(tensor, name, match[2])

    def _info(self, tensor: GGUFTensor, name: str, part: str) -> TensorInfo:
        return TensorInfo(
            name,
            str(self.metadata.path),
            tensor.offset,
            tensor.num_bytes,
            tensor.shape,
            tensor.dtype,
            self.heads.get(part, 0),
            self.norm_offset if name.endswith("norm.weight") else 0.0,
        )

    def _apart(self, tensor: GGUFTensor, name: str) -> Iterator[TensorInfo]:
        """[experts, rows, columns] as one tensor an expert; they lie one after the other."""
        if len(tensor.shape) != 3 or tensor.shape[0] != self.experts or not tensor.num_bytes:
            raise ModelError(
                f"{self.metadata.path}: GGUF tensor {tensor.name} has the shape "
                f"{list(tensor.shape)}, expected one matrix for each of "
                f"{self.metadata.full('expert_count')} {self.experts}"
            )
        size = tensor.num_bytes // self.experts
        for number in range(self.experts):
            yield TensorInfo(
                name.replace(_EXPERT, str(number)),
                str(self.metadata.path),
                tensor.offset + number * size,
                size,
                tensor.shape[1:],
                tensor.dtype,
            )
