from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import pytest

from rtp_core.api import MediaSpan
from rtp_core.errors import ConfigError
from rtp_core.kv.block_hash import (
    SECRET_BYTES,
    BlockHasher,
    load_or_create_secret,
    media_in_block,
)

SECRET = bytes(range(32))


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def test_keys_never_change_between_versions_and_machines():
    hasher = BlockHasher(SECRET, 4)
    root = hasher.root("tenant", "salt", "model")
    first = hasher.key(root, (1, 2, 3, 4))
    assert root.hex() == "89fd9e282bd887b68cfbd3ff343fac45"
    assert first.hex() == "5ff68e2b2c7713a2e0510d808f3dbded"
    assert hasher.key(first, (2**32 - 1, 0, 7, 2**16)).hex() == "da4c1082f60d783220710972bf15136b"
    assert hasher.key(root, (1, 2, 3, 4), "3:cat@0+2").hex() == "d102dad056483461e9a900a364c4b113"


def test_a_key_is_the_keyed_hash_of_parent_and_little_endian_ids():
    hasher = BlockHasher(SECRET, 2)
    raw = b"p" * 16 + (1).to_bytes(4, "little") + (70_000).to_bytes(4, "little")
    assert hasher.key(b"p" * 16, (1, 70_000)) == blake2b(raw, digest_size=16, key=SECRET).digest()


def test_whatever_separates_two_requests_changes_the_root():
    hasher = BlockHasher(SECRET, 4)
    roots = {
        hasher.root(*parts)
        for parts in [
            ("", "", "m"),
            ("a", "", "m"),
            ("", "a", "m"),
            ("a", "b", "m"),
            ("ab", "", "m"),
            ("", "ab", "m"),
            ("a", "b", "n"),
            ("\udc80", "", "m"),
        ]
    }
    roots.add(BlockHasher(SECRET, 8).root("", "", "m"))
    roots.add(BlockHasher(bytes(32), 4).root("", "", "m"))
    assert len(roots) == 10


def test_media_enters_by_digest_offset_and_extent():
    cat = MediaSpan(2, 5, "cat", "vision")
    assert media_in_block((cat,), 0, 4) == "3:cat@-2+2"
    assert media_in_block((cat,), 4, 8) == "3:cat@2+3"
    assert media_in_block((cat,), 8, 12) == ""
    two = (MediaSpan(0, 1, "a", "vision"), MediaSpan(3, 2, "b", "vision"))
    assert media_in_block(two, 0, 4) == "1:a@0+1|1:b@-3+1"


@pytest.mark.parametrize(
    "other",
    [
        MediaSpan(2, 5, "dog", "vision"),
        MediaSpan(1, 5, "cat", "vision"),
        MediaSpan(2, 6, "cat", "vision"),
        MediaSpan(2, 1, "cat", "vision"),
    ],
)
def test_blocks_with_different_features_have_different_names(other):
    cat = MediaSpan(2, 5, "cat", "vision")

    def names(span):
        return [media_in_block((span,), begin, begin + 4) for begin in (0, 4)]

    assert names(cat) != names(other)


def test_a_digest_cannot_pretend_to_be_two():
    sly = MediaSpan(0, 1, "a@0+1|1:b", "vision")
    honest = (MediaSpan(0, 1, "a", "vision"), MediaSpan(0, 1, "b", "vision"))
    assert media_in_block((sly,), 0, 4) != media_in_block(honest, 0, 4)


def test_the_secret_is_made_once_and_private(tmp_path):
    path = tmp_path / "deep" / "secret"
    secret = load_or_create_secret(path)
    assert len(secret) == SECRET_BYTES
    assert load_or_create_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names_in(path.parent) == ["secret"]
    assert load_or_create_secret(tmp_path / "other") != secret


def test_processes_that_start_together_agree_on_one_secret(tmp_path):
    path = tmp_path / "secret"
    with ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(lambda _: load_or_create_secret(path), range(64)))
    assert secrets == {path.read_bytes()}
    assert names_in(tmp_path) == ["secret"]


def test_a_race_lost_between_look_and_link_keeps_the_winner(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    winner = b"w" * SECRET_BYTES
    link = type(path).hardlink_to

    def late(self, target):
        path.write_bytes(winner)
        link(self, target)

    monkeypatch.setattr(type(path), "hardlink_to", late)
    assert load_or_create_secret(path) == winner
    assert names_in(tmp_path) == ["secret"]


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_secret_of_the_wrong_length_is_refused(tmp_path, content):
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"holds {len(content)} bytes.*32.*delete it") as caught:
        load_or_create_secret(path)
    assert caught.value.field == "kv.hash_secret_file"
    assert path.read_bytes() == content


def test_a_path_that_is_no_file_is_refused_with_its_name(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be used.*read and write") as caught:
        load_or_create_secret(tmp_path)
    assert caught.value.field == "kv.hash_secret_file"
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(ConfigError, match="file/secret cannot be used"):
        load_or_create_secret(blocked / "secret")


def test_a_secret_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    """Refused by the test, since root may read everywhere."""
    path = tmp_path / "secret"
    path.write_bytes(b"x" * SECRET_BYTES)

    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match="Permission denied"):
        load_or_create_secret(path)


def test_a_secret_may_lie_where_nothing_can_be_written(tmp_path):
    path = tmp_path / "secret"
    secret = load_or_create_secret(path)
    tmp_path.chmod(0o500)
    try:
        assert load_or_create_secret(path) == secret
    finally:
        tmp_path.chmod(0o700)
