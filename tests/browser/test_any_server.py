"""What the page does with any server: the stub here, a real engine through RTP_PAGE_URL."""

from __future__ import annotations

import json
import time
from urllib.request import urlopen

import pytest
from page_actions import PHONE, ask, overflow, shown, wait_ready, wait_state

pytestmark = pytest.mark.browser


def test_a_reply_arrives_with_its_measurements(open_page, base_url):
    page = wait_ready(open_page(base_url))
    ask(page, "Say hello.")
    reply = wait_state(page, "done")
    assert shown(reply)
    names = reply.locator(".numbers dt").all_inner_texts()
    assert {"First token", "Tokens", "Cached", "Finish"} <= set(names)


def test_the_panel_shows_features_with_reasons_and_requests(open_page, base_url):
    page = wait_ready(open_page(base_url))
    first = page.locator("#features tbody tr").first
    first.wait_for()
    assert "on" in first.get_attribute("class")
    assert all(page.locator("#features .reason").all_inner_texts())
    ask(page, "Say hello.")
    wait_state(page, "done")
    page.locator("#requests tbody tr").first.wait_for()
    assert page.locator("#cache").get_by_text("room for").is_visible()
    page.get_by_role("button", name="Timeline").click()
    opened = page.locator("#requests .details:visible")
    assert "tokens" in opened.inner_text()


def test_stopping_ends_the_request_on_the_server(open_page, base_url):
    page = wait_ready(open_page(base_url))
    ask(page, "Count from one to a thousand, in words.")
    page.click("#send[data-mode=stop]")
    wait_state(page, "stopped")
    deadline = time.monotonic() + 2
    while (running := _running(base_url)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running == 0


def test_the_phone_layout_has_no_horizontal_scroll(open_page, base_url):
    page = wait_ready(open_page(base_url, viewport=PHONE))
    ask(page, "Say hello.")
    wait_state(page, "done")
    assert overflow(page) == []
    page.click("[data-view-button=engine]")
    page.locator("#features tbody tr").first.wait_for()
    assert overflow(page) == []


def _running(base_url: str) -> int:
    with urlopen(base_url + "v1/stats") as answer:
        return json.load(answer)["engine"]["num_running"]
