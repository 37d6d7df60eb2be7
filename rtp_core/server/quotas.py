"""What one API key may use: requests under way, and tokens a minute."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rtp_core.errors import RequestError

_MINUTE_S = 60.0


@dataclass(slots=True)
class _Bucket:
    """Tokens that a tenant may still use; below zero after a request that used more."""

    left: float
    filled_s: float


@dataclass(slots=True)
class Quotas:
    """Bounds by tenant, 0 for none. Tenants are known keys, so that tables stay small.

    A request is let in while any token is left and is charged what it used when it ends: its
    answer's length is not known before.
    """

    max_requests: int
    tokens_per_minute: int
    clock: Callable[[], float] = time.monotonic
    _under_way: Counter[str] = field(default_factory=Counter)
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    @contextmanager
    def visit(self, tenant: str) -> Iterator[None]:
        """A request of a tenant. Raises 429 with Retry-After when a bound is reached."""
        self._check(tenant)
        self._under_way[tenant] += 1
        try:
            yield
        finally:
            self._under_way[tenant] -= 1

    def charge(self, tenant: str, num_tokens: int) -> None:
        """A request of a tenant used so many."""
        if self.tokens_per_minute:
            self._bucket(tenant).left -= num_tokens

    def _check(self, tenant: str) -> None:
        if self.max_requests and self._under_way[tenant] >= self.max_requests:
            raise _refusal(
                f"this API key has {self.max_requests} requests under way",
                "wait for one to end, or raise server.max_requests_per_key",
                1,
            )
        if self.tokens_per_minute and (left := self._bucket(tenant).left) < 1.0:
            raise _refusal(
                f"this API key has used its {self.tokens_per_minute} tokens a minute",
                "wait, or raise server.tokens_per_minute_per_key",
                math.ceil((1.0 - left) * _MINUTE_S / self.tokens_per_minute),
            )

    def _bucket(self, tenant: str) -> _Bucket:
        """Filled up to now."""
        now, full = self.clock(), float(self.tokens_per_minute)
        bucket = self._buckets.setdefault(tenant, _Bucket(full, now))
        gained = (now - bucket.filled_s) * full / _MINUTE_S
        bucket.left, bucket.filled_s = min(full, bucket.left + gained), now
        return bucket


def _refusal(message: str, remedy: str, retry_after_s: int) -> RequestError:
    return RequestError(
        None,
        message,
        status=429,
        code="rate_limit_exceeded",
        remedy=remedy,
        retry_after_s=retry_after_s,
    )
