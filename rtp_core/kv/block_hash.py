"""Keys of blocks: a keyed chain of 128-bit hashes over raw token ids.

key_i = blake2b(key_{i-1} | ids as u32 little-endian | extra, key=secret). The root binds
tenant, salt and model, so equal text of two tenants never meets. The secret makes keys
unpredictable and is shared by a cluster, so that tiers and routers agree.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from rtp_core.api import MediaSpan
from rtp_core.errors import ConfigError

KEY_BYTES = 16
SECRET_BYTES = 32
_LAYOUT = b"rtp-kv-1"


def load_or_create_secret(path: Path) -> bytes:
    """The cluster's secret; created once, readable by its owner only.

    Raises ConfigError when the file has the wrong length or cannot be read.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(path)
        secret = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "kv.hash_secret_file",
            f"{path} cannot be used: {error.strerror}",
            remedy="name a file this user can read and write",
        ) from error
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            "kv.hash_secret_file",
            f"{path} holds {len(secret)} bytes, a secret has {SECRET_BYTES}",
            remedy="delete it to have a new one made",
        )
    return secret


def _create(path: Path) -> None:
    """Write beside and link into place, so that a reader never sees half a secret."""
    if path.exists():
        return
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(SECRET_BYTES))
    finally:
        os.close(descriptor)
    try:
        with contextlib.suppress(FileExistsError):  # another process was first; its secret holds
            path.hardlink_to(scratch)
    finally:
        scratch.unlink()


class BlockHasher:
    """Chains keys for one secret and block size. `digest_bytes` is for collision tests."""

    def __init__(self, secret: bytes, block_size: int, digest_bytes: int = KEY_BYTES) -> None:
        self._secret = secret
        self._block_size = block_size
        self._digest_bytes = digest_bytes

    def root(self, tenant: str, cache_salt: str, fingerprint: str) -> bytes:
        """Key before the first block."""
        digest = blake2b(_LAYOUT, digest_size=KEY_BYTES, key=self._secret)
        for part in (tenant, cache_salt, fingerprint):
            raw = part.encode("utf-8", errors="surrogatepass")
            digest.update(len(raw).to_bytes(4, "little") + raw)
        return digest.digest()

    def extend(
        self,
        keys: list[bytes],
        root: bytes,
        token_ids: Sequence[int],
        media: Sequence[MediaSpan] = (),
    ) -> None:
        """Append keys of the full blocks of `token_ids` that `keys` does not cover yet."""
        size = self._block_size
        parent = keys[-1] if keys else root
        for number in range(len(keys), len(token_ids) // size):
            begin = number * size
            raw = array("I", token_ids[begin : begin + size]).tobytes()
            extra = _media_key(media, begin, begin + size) if media else b""
            parent = blake2b(
                parent + raw + extra, digest_size=self._digest_bytes, key=self._secret
            ).digest()
            keys.append(parent)


def _media_key(media: Sequence[MediaSpan], begin: int, end: int) -> bytes:
    """Which media, and which part of it, lies under a block's placeholders."""
    parts = [
        f"{span.digest}@{begin - span.start}"
        for span in media
        if span.start < end and begin < span.start + span.length
    ]
    return "|".join(parts).encode()
