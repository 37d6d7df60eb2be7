"""Keys of prefixes: a keyed chain of 128-bit hashes over raw token ids.

key_i = blake2b(key_{i-1} | ids as u32 little-endian | media, key=secret). The root binds
tenant, salt, model and block size. The secret makes keys unpredictable and is shared by a
cluster, so that tiers, peers and routers name the same prefix alike.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
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
        self.block_size = block_size
        self._secret = secret
        self._digest_bytes = digest_bytes
        self._pack = struct.Struct(f"<{block_size}I").pack

    def root(self, tenant: str, cache_salt: str, fingerprint: str) -> bytes:
        """Key before the first block."""
        digest = blake2b(_LAYOUT, digest_size=KEY_BYTES, key=self._secret)
        digest.update(self.block_size.to_bytes(4, "little"))
        for part in (tenant, cache_salt, fingerprint):
            raw = part.encode("utf-8", errors="surrogatepass")
            digest.update(len(raw).to_bytes(4, "little") + raw)
        return digest.digest()

    def key(self, parent: bytes, token_ids: Sequence[int], media: str = "") -> bytes:
        """Key of the prefix that adds one full block to `parent`; ids lie in 0 … 2^32 - 1."""
        raw = self._pack(*token_ids) + media.encode("utf-8", errors="surrogatepass")
        return blake2b(parent + raw, digest_size=self._digest_bytes, key=self._secret).digest()


def media_in_block(media: Sequence[MediaSpan], begin: int, end: int) -> str:
    """Which media, and which part of it, lies under the positions `begin` … `end` - 1.

    The number of features used in the block counts too: a placeholder that a span does not
    cover is ordinary text with the same token id.
    """
    return "|".join(
        f"{len(span.digest)}:{span.digest}@{begin - span.start}"
        f"+{min(end, span.start + span.length) - max(begin, span.start)}"
        for span in media
        if span.start < end and begin < span.start + span.length
    )
