"""What one client has asked tells nothing to another.

Timing of shared prefixes and keys: vLLM CVE-2025-46570, CVE-2025-25183 (predictable hashes),
CVE-2025-59425 (comparison of keys); images that hash alike: CVE-2025-46722.
"""

from __future__ import annotations

import hmac
import json
import sys
from pathlib import Path

import httpx
import pytest

from rtp_core.errors import RequestError
from rtp_core.server.auth import Guard

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from serving import serving

SECRET = "the password of the vault is hunter2, and nobody else is to know of it. " * 2


@pytest.fixture(scope="module")
def server(tiny_model, tmp_path_factory):
    log = tmp_path_factory.mktemp("tenants") / "log"
    keys = ("--set", "server.api_keys=alice,mallory")
    with serving(tiny_model, log, "--dtype", "float32", *keys) as running:
        yield running


def cached(server, key, prompt=SECRET, **more):
    """Tokens of the prompt that came from the cache."""
    answer = httpx.post(
        f"{server.url}/v1/completions", json={"prompt": prompt, "max_tokens": 1, **more},
        headers={"authorization": f"Bearer {key}"}, timeout=60,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_another_key_finds_nothing_of_a_prompt_in_the_cache(server):
    assert cached(server, "alice") == 0
    assert cached(server, "alice") >= 112
    told = 0  # by mallory's own guesses
    for end in (16, 32, 64, 128, len(SECRET)):
        assert cached(server, "mallory", SECRET[:end] + f"guess {end}") <= told
        told = end
    assert cached(server, "alice") >= 112


def test_a_salt_keeps_users_of_one_key_apart(server):
    prompt = "salted: " + SECRET
    assert cached(server, "alice", prompt, cache_salt="one") == 0
    assert cached(server, "alice", prompt, cache_salt="one") >= 112
    assert cached(server, "alice", prompt, cache_salt="two") == 0
    assert cached(server, "alice", prompt) == 0
    for sly in ("one\x00", "one ", "One", "on", "onee"):
        assert cached(server, "alice", prompt, cache_salt=sly) == 0


def test_a_key_cannot_pose_as_a_salt(server):
    """Tenant and salt are told apart in what names a block."""
    prompt = "posing: " + SECRET
    assert cached(server, "alice", prompt, cache_salt="x") == 0
    for salt in ("alice", "alicex", "x", json.dumps(["alice", "x"])):
        assert cached(server, "mallory", prompt, cache_salt=salt) == 0


def test_no_tenant_sees_another_in_what_the_server_says_of_itself(server):
    cached(server, "alice", "seen: " + SECRET)
    for path in ("/v1/stats", "/metrics", "/v1/plugins", "/v1/rtp/cost", "/v1/models"):
        headers = {"authorization": "Bearer mallory"}
        text = httpx.get(server.url + path, headers=headers, timeout=30).text
        assert "hunter2" not in text
        assert "alice" not in text
    assert "hunter2" not in server.log.read_text()


def test_a_key_is_compared_with_every_known_key_in_constant_time(monkeypatch):
    """vLLM CVE-2025-59425: comparing strings tells how much of a guess is right."""
    compared = []

    def compare(given, known):
        compared.append((given, known))
        return hmac_compare(given, known)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    guard = Guard(("one", "two", "three"))
    guard.tenant({"authorization": "Bearer one"})
    with pytest.raises(RequestError):
        guard.tenant({"authorization": "Bearer no"})
    assert len(compared) == 6
    assert all(len(given) == len(known) == 32 for given, known in compared)
