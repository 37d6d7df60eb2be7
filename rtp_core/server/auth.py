"""API keys: known only by their digests, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from rtp_core.errors import RequestError


class Guard:
    """Names the tenant of a request, or refuses it with 401. No keys: everybody is tenant ""."""

    def __init__(self, api_keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in api_keys]

    def tenant(self, headers: Mapping[str, str]) -> str:
        """Digest of the key in ``Authorization: Bearer …`` (or ``x-api-key``), in hex.

        Every known key is compared, whichever matches, so that time tells nothing.
        """
        if not self._digests:
            return ""
        given = _digest(_key(headers).encode("latin-1"))  # the bytes that were sent
        matches = [hmac.compare_digest(given, known) for known in self._digests]
        if not any(matches):
            raise RequestError(
                None,
                "the API key is missing or wrong",
                status=401,
                code="invalid_api_key",
                remedy="send the header Authorization: Bearer KEY",
            )
        return given.hex()


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _key(headers: Mapping[str, str]) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
