"""The transformers package: optional, and never imported on the way of native models."""

from __future__ import annotations

from types import ModuleType

from rtp_core.errors import ModelError

REMEDY = "pip install transformers"


def load_library(architecture: str) -> ModuleType:
    """The package. Raises ModelError with the remedy when it is not installed or broken."""
    try:
        import transformers
    except ImportError as error:
        raise ModelError(
            f"there is no native family for {architecture}, and transformers, which would serve "
            f"it, cannot be imported: {error}",
            remedy=REMEDY,
        ) from error
    return transformers


def refusal(architecture: str, reason: str, remedy: str | None = None) -> ModelError:
    """An architecture that this backend would serve wrongly, and so does not serve."""
    return ModelError(
        f"{architecture} cannot be served through transformers: {reason}",
        remedy=remedy or f"it needs a plugin that offers model:{architecture}",
    )
