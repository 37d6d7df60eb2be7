"""The architectures that GGUF files are read for."""

from __future__ import annotations

from rtp_core.errors import ModelError
from rtp_core.loading.gguf_architectures.architecture import Architecture
from rtp_core.loading.gguf_architectures.gemma import GEMMA2, GEMMA3
from rtp_core.loading.gguf_architectures.llama import LLAMA, MISTRAL3, SMOLLM3
from rtp_core.loading.gguf_architectures.qwen import QWEN2, QWEN3, QWEN3MOE
from rtp_core.loading.gguf_metadata import Metadata

ARCHITECTURES = {
    one.name: one for one in (LLAMA, MISTRAL3, SMOLLM3, QWEN2, QWEN3, QWEN3MOE, GEMMA2, GEMMA3)
}
"""By ``general.architecture``."""


def find_architecture(metadata: Metadata) -> Architecture:
    """Raises ModelError for one that is not supported."""
    found = ARCHITECTURES.get(metadata.architecture)
    if found is None:
        raise ModelError(
            f"{metadata.path}: GGUF architecture {metadata.architecture!r} is not supported",
            remedy=f"supported: {', '.join(ARCHITECTURES)}",
        )
    return found
