"""The connection's states, the key, the models and the layout, against a scripted server."""

from __future__ import annotations

import engine_data
import pytest
from page_actions import PHONE, PROMPT, ask, wait_ready, wait_state
from stub_server import ROLE, Reply, Stub, ending, text

pytestmark = pytest.mark.browser


def test_sending_waits_until_the_engine_is_ready(open_page, stub):
    stub.state = "loading"
    page = open_page(stub.url, allow={503})
    page.get_by_text("The model is loading").wait_for()
    assert page.locator("#progress").is_visible()
    page.fill(PROMPT, "Ready?")
    page.press(PROMPT, "Enter")
    assert page.locator(".message").count() == 0
    assert page.input_value(PROMPT) == "Ready?"
    stub.state = "ready"
    wait_ready(page)
    assert page.locator("#banner").is_hidden()
    page.press(PROMPT, "Enter")
    wait_state(page, "done")


def test_a_broken_engine_says_so(open_page, stub):
    page = wait_ready(open_page(stub.url, allow={503}))
    stub.state = "broken"
    page.get_by_text("The engine has stopped.").wait_for()
    assert page.locator("#pill-text").inner_text() == "Broken"


def test_a_lost_server_is_reported_and_found_again(chromium):
    stub = Stub()
    page = chromium.new_page()  # refused connections are console errors: not watched here
    page.goto(stub.url)
    wait_ready(page)
    port = int(stub.url.split(":")[2].rstrip("/"))
    stub.close()
    page.get_by_text("No answer from the server.").wait_for()
    again = Stub(port=port)
    wait_ready(page)
    page.close()
    again.close()


def test_a_key_is_asked_for_checked_and_kept_in_the_tab(open_page, stub):
    stub.api_key = "right"
    page = open_page(stub.url, allow={401})
    page.wait_for_selector("dialog[open]")
    assert page.evaluate("document.activeElement.id") == "key"
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The server refused this key.").wait_for()
    page.fill("#key", "right")
    page.keyboard.press("Enter")
    wait_ready(page)
    ask(page, "Go")
    wait_state(page, "done")
    page.reload()
    wait_ready(page)
    assert page.evaluate("localStorage.length") == 0


def test_a_dismissed_key_dialog_can_be_opened_again(open_page, stub):
    stub.api_key = "right"
    page = open_page(stub.url, allow={401})
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.click("#banner-key")
    page.fill("#key", "right")
    page.keyboard.press("Enter")
    wait_ready(page)


def test_several_models_can_be_chosen(open_page, stub, monkeypatch):
    cards = [{"id": "one"}, {"id": "org/two"}]
    monkeypatch.setattr(engine_data, "models", lambda: {"object": "list", "data": cards})
    page = wait_ready(open_page(stub.url))
    page.get_by_label("Model", exact=True).select_option("org/two")
    ask(page, "Go")
    wait_state(page, "done")
    assert stub.bodies[-1]["model"] == "org/two"


def test_the_page_works_below_a_root_path(open_page):
    stub = Stub(root="/team/rtp")
    page = wait_ready(open_page(stub.url))
    ask(page, "Go")
    wait_state(page, "done")
    page.close()
    stub.close()


def test_nothing_jumps_while_the_page_starts_and_a_reply_arrives(open_page, stub):
    for viewport in ({"width": 1280, "height": 800}, PHONE):
        page = wait_ready(open_page(stub.url, viewport=viewport))
        words = [text(f"{word} ") for word in engine_data.DEMO_REPLY.split(" ")]
        stub.replies.append(Reply([ROLE, 0.1, *words[:30], 0.2, *words[30:], *ending()]))
        ask(page, "Go")
        wait_state(page, "done")
        assert page.evaluate(LAYOUT_SHIFT) < 0.02


def test_a_panel_without_numbers_does_not_stop_the_chat(open_page, stub):
    stub.stats_fail = True
    page = wait_ready(open_page(stub.url, allow={500}))
    ask(page, "Go")
    wait_state(page, "done")


def test_text_has_enough_contrast_in_both_schemes(open_page, stub):
    for scheme in ("light", "dark"):
        page = wait_ready(open_page(stub.url, color_scheme=scheme))
        page.locator("#features tbody tr").first.wait_for()
        assert page.evaluate(CONTRAST) == []


def test_one_panel_at_a_time_on_a_phone(open_page, stub):
    page = wait_ready(open_page(stub.url, viewport=PHONE))
    assert page.locator("#chat").is_visible()
    assert page.locator("#engine").is_hidden()
    page.click("[data-view-button=engine]")
    assert page.locator("#chat").is_hidden()
    assert page.locator("#engine").is_visible()
    assert page.locator("[data-view-button=split]").is_hidden()


# Chromium's own measure: share of the window moved times distance, without input just before.
LAYOUT_SHIFT = """() => new Promise((resolve) => {
  new PerformanceObserver((list) => resolve(
    list.getEntries().filter((entry) => !entry.hadRecentInput)
      .reduce((sum, entry) => sum + entry.value, 0)
  )).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(0), 300);
})"""

# WCAG 2.1 contrast (4.5) of text on the nearest opaque background. Disabled controls are exempt.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const opaque = (node) => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const light = (color) => {
    const [r, g, b] = color.slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || node.disabled || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const pair = [light(parse(style.color)), light(opaque(node))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) bad.push(`${node.textContent.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return bad;
}"""
