"""How a model in an object store is written."""

from __future__ import annotations

SCHEMES = ("s3", "gs", "http", "https")


def is_object_address(name: str) -> bool:
    """``s3://``, ``gs://``, ``http://`` or ``https://``."""
    scheme, found, _ = name.partition("://")
    return bool(found) and scheme in SCHEMES
