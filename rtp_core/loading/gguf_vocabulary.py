"""What a GGUF vocabulary says about running the model: its size, where texts end."""

from __future__ import annotations

from rtp_core.errors import ModelError
from rtp_core.loading.gguf_metadata import Metadata

END_TOKENS = frozenset({
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>",
    "<end_of_turn>", "<eos>",
})  # fmt: skip
"""Control tokens that end a turn or a text wherever they are defined."""
_CONTROL, _USER_DEFINED = 3, 4
_TOKENS = "tokenizer.ggml.tokens"


def vocabulary_size(metadata: Metadata) -> int:
    """Rows of the embedding, of which there is one for every token."""
    embedding = metadata.tensor("token_embd.weight")
    tokens = len(metadata.items(_TOKENS))
    if len(embedding.shape) != 2 or embedding.shape[0] < tokens:
        raise ModelError(
            f"{metadata.path}: GGUF tensor {embedding.name} has the shape "
            f"{list(embedding.shape)}, expected a row for each of {tokens} {_TOKENS}"
        )
    return embedding.shape[0]


def end_ids(metadata: Metadata, size: int) -> list[int]:
    """The declared end tokens and every control token that by its name ends a turn.

    Some converters call such tokens user-defined; an ordinary piece of text ends nothing.
    """
    declared = (metadata.token_id(which, size) for which in ("eos", "eot", "eom"))
    ends = {number for number in declared if number is not None}
    tokens = metadata.items(_TOKENS)
    kinds = metadata.items("tokenizer.ggml.token_type")
    for number, (token, kind) in enumerate(zip(tokens, kinds, strict=False)):
        if kind in (_CONTROL, _USER_DEFINED) and token in END_TOKENS:
            ends.add(number)
    return sorted(ends)
