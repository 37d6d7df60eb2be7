"""Chromium, the stub server, and pages that fail a test on any complaint of the browser.

`RTP_PAGE_URL` points the tests of test_any_server.py at a running server instead of the stub.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not add it

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1280, "height": 800}


@dataclass
class Complaints:
    """What a page did that it should not: console errors, exceptions, foreign requests.

    The browser itself logs each refused fetch; a test that expects a refusal allows its status.
    """

    origin: str
    allowed: set[int]
    found: list[str] = field(default_factory=list)

    def on_console(self, message: Any) -> None:
        status = re.search(r"Failed to load resource.* status of (\d+)", message.text)
        expected = status is not None and int(status[1]) in self.allowed
        if message.type in ("error", "warning") and not expected:
            self.found.append(f"console {message.type}: {message.text}")

    def on_request(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.found.append(f"foreign request: {request.url}")

    def watch(self, page: Any) -> None:
        page.on("console", self.on_console)
        page.on("request", self.on_request)
        page.on("pageerror", lambda error: self.found.append(f"exception: {error}"))


# One browser for this room (a package, for pytest) and no longer: the synchronous Playwright keeps
# an event loop in this thread, which would disturb asynchronous tests of other rooms.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing; install Debian's package chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def stub() -> Iterator[Any]:
    from stub_server import Stub

    server = Stub()
    yield server
    server.close()


@pytest.fixture
def base_url(request: pytest.FixtureRequest) -> str:
    """The server under test, with a trailing slash: a running one, or the stub."""
    given = os.environ.get("RTP_PAGE_URL")
    return given.rstrip("/") + "/" if given else request.getfixturevalue("stub").url


OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(chromium: Any, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """``open_page(url, viewport=…, allow={503}, **context options)`` -> a loaded page."""
    if "stub" in request.fixturenames:  # set up first, so that the pages are closed before it
        request.getfixturevalue("stub")
    contexts: list[Any] = []
    watches: list[Complaints] = []

    def open_one(
        url: str,
        *,
        viewport: dict[str, int] = DESKTOP,
        allow: frozenset[int] = frozenset(),
        **options: Any,
    ) -> Any:
        context = chromium.new_context(viewport=viewport, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        watches.append(Complaints("/".join(url.split("/")[:3]) + "/", set(allow)))
        watches[-1].watch(page)
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert [complaint for watch in watches for complaint in watch.found] == []
