"""How a model in an object store is written."""

from __future__ import annotations

SCHEMES = ("s3", "gs", "http", "https")


def is_object_address(name: str) -> bool:
    """``s3://``, ``gs://``, ``http://`` or ``https://``."""
    scheme, found, _ = name.partition("://")
    return bool(found) and scheme in SCHEMES


def without_query(name: str) -> str:
    """The model's name for others to see: a query may be a signature."""
    return name.partition("?")[0] if is_object_address(name) else name
