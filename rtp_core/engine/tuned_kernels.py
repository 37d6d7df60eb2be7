"""Kernels' forms as `rtp tune` found them on this machine, put to use when a model is built."""

from __future__ import annotations

import logging
from typing import Any

from rtp_core.engine.tuned_file import Conditions, conditions_here, load, tuned_file

log = logging.getLogger("rtp.engine")


def use_tuned(device: str, dtype: str) -> None:
    """Prefer them from now on, where the GPU's kernels serve."""
    if device == "cpu" or dtype == "float32":
        return
    conditions = conditions_here()
    use(conditions, tuned_here(conditions))


def use(conditions: Conditions, document: dict[str, Any] | None) -> None:
    """Prefer a document's forms, or those that are shipped; the log says which."""
    from rtp_kernels.gpu import tuned

    if document is None:
        tuned.use_none()
        return
    tuned.use(document)
    count = tuned.num_forms(document)
    log.info("tuned_forms count=%d file=%s", count, tuned_file(conditions))


def tuned_here(conditions: Conditions) -> dict[str, Any] | None:
    """The sound document for these conditions; one that is not is left aside with a warning."""
    from rtp_kernels.gpu import tuned

    file = tuned_file(conditions)
    document = load(file, conditions)
    if document is not None:
        try:
            tuned.check(document)
        except ValueError as error:
            log.warning("tuned_forms_left_aside file=%s reason=%r", file, str(error))
            return None
    return document


def tuned_words(device: str, dtype: str) -> str:
    """What `rtp explain` says of it; empty where no GPU's kernels serve."""
    if device == "cpu" or dtype == "float32":
        return ""
    conditions = conditions_here()
    document = tuned_here(conditions)
    if document is None:
        return "forms as shipped, none tuned on this machine (rtp tune)"
    from rtp_kernels.gpu.tuned import num_forms

    return f"{num_forms(document)} forms tuned on this machine, {tuned_file(conditions)}"
