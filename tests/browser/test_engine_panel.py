"""The engine panel, the connection's states and the key, against a scripted server."""

from __future__ import annotations

import engine_data
import pytest
from page_actions import PHONE, PROMPT, ask, overflow, wait_ready, wait_state
from stub_server import ROLE, Reply, Stub, ending, saying, text

pytestmark = pytest.mark.browser


@pytest.fixture
def page(open_page, stub):
    return wait_ready(open_page(stub.url))


def test_features_show_state_offer_plugin_and_reason(page):
    rows = page.locator(".features > li")
    rows.first.wait_for()
    speculation = rows.filter(has_text="Speculation").inner_text()
    assert [line for line in speculation.split("\n") if line] == [
        "on",
        "Speculation",
        "ngram",
        "speculation.methods",
        "core.speculation 0.1.0",
        "eagle no draft head fits this model",
        "spec_eagle 0.1.0",
    ]
    encoder = rows.filter(has_text="Media encoder").inner_text().split("\n")
    assert encoder[0] == "off"
    assert "modality.encoders is empty" in encoder
    states = page.locator("#features .state").all_inner_texts()
    assert states == sorted(states, reverse=True)  # what is on comes first


def test_broken_plugins_and_run_time_errors_stand_out(open_page, stub):
    stub.stats["engine"]["plugin_errors"] = {"kvquant": 3}
    page = wait_ready(open_page(stub.url))
    broken = page.locator("#plugins li", has_text="vision").first
    assert broken.locator(".state").inner_text() == "broken"
    assert "needs API 2.0" in broken.inner_text()
    assert "3 errors" in page.locator("#plugins li", has_text="kvquant").first.inner_text()


def test_memory_is_split_by_tier_and_format(page):
    memory = page.locator("#memory")
    memory.get_by_text("host").wait_for()
    said = memory.inner_text()
    assert "Room for 69,904 tokens in 4,369 blocks." in said
    assert "1,616 of 4,369 blocks · 37 %" in said
    assert "half of the memory left" in said
    width = memory.locator(".tier .bar i").first.evaluate("part => parseFloat(part.style.width)")
    assert width == pytest.approx(100 * 812 / 4369, abs=0.1)


def test_speculation_and_prefix_hits_are_told_as_gains(page):
    said = page.locator("#gains").inner_text()
    assert "2.48 tokens per step" in said  # 1 + 17900 / 12100
    assert "37 % of drafts accepted" in said
    assert "55 % hit rate" in said


def test_an_unused_speculator_is_off_with_its_reason(open_page, stub):
    for name in ("spec_drafts", "spec_draft_tokens", "spec_accepted_tokens"):
        stub.stats["engine"][name] = 0
    for feature in stub.plugins["effective"]["features"]:
        feature["on"] = feature["role"] != "speculator"
    off = engine_data.feature("speculator", None, None, False, "speculation.methods is empty")
    stub.plugins["effective"]["features"].append(off)
    page = wait_ready(open_page(stub.url))
    page.locator("#gains").get_by_text("Off: speculation.methods is empty.").wait_for()


def test_latencies_have_units(page):
    row = page.locator("#latency tr", has_text="First token").inner_text()
    assert row.split("\t")[1:] == ["142 ms", "610 ms", "656"]


def test_charts_draw_history_and_read_out_under_the_pointer(page):
    picture = page.locator(".chart svg").first
    page.wait_for_function("document.querySelector('.chart .line').getAttribute('d').length > 500")
    box = picture.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    assert ":" in page.locator(".chart-time").first.inner_text()
    assert "Generation" in picture.get_attribute("aria-label")
    page.get_by_role("button", name="10 min").click()
    assert page.locator(".chart-axis").first.inner_text().startswith("−10 min")


def test_requests_have_a_timeline_in_true_proportions(page):
    row = page.locator("#requests tbody tr", has_text="64 cached").first
    row.wait_for()
    label = row.locator(".timeline").get_attribute("aria-label")
    assert label.startswith("queue 300 ms, prefill 130 ms, decode")
    widths = row.locator(".timeline i").evaluate_all(
        "parts => parts.map((part) => parseFloat(part.style.width))"
    )
    assert widths[0] / widths[1] == pytest.approx(0.3 / 0.13, rel=0.02)


def test_a_poll_keeps_the_rows_it_knows(page, stub):
    page.locator("#requests tbody tr").first.wait_for()
    page.evaluate("document.querySelector('#requests tbody tr').dataset.mark = 'kept'")
    newer = {**stub.stats["requests"][0], "id": "chatcmpl-new"}
    newer["started_unix_s"] += 1
    stub.stats["requests"].append(newer)
    page.locator("#requests tr", has_text="chatcmpl-new").wait_for()
    second = page.locator("#requests tbody tr").nth(1)
    assert second.get_attribute("data-mark") == "kept"


def test_an_engine_that_has_done_nothing_yet_shows_no_nonsense(open_page, stub):
    stub.stats.update(history=[], requests=[], latency={}, engine={"num_blocks": 10})
    page = wait_ready(open_page(stub.url))
    page.get_by_text("No requests yet.").wait_for()
    said = page.locator("#engine").inner_text()
    assert not {"NaN", "undefined", "null", "Infinity"} & set(said.replace(",", " ").split())


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


def test_no_width_scrolls_sideways(open_page, stub):
    stub.plugins["effective"]["features"][0]["reason"] = "x" * 200
    stub.plugins["effective"]["features"][1]["offer"] = "y" * 80
    stub.plugins["data"][0]["summary"] = "z" * 200
    page = wait_ready(open_page(stub.url))
    stub.replies.append(
        saying(f"{engine_data.DEMO_REPLY}\n\n{'unbreakable' * 40}\n\n`{'x' * 300}`")
    )
    ask(page, "long " + "w" * 300)
    wait_state(page, "done")
    for width in (320, 390, 768, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 844})
        for view in ("chat", "engine"):
            page.click(f"[data-view-button={view}]")
            assert overflow(page) == [], (width, view)


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
        page.locator("#features li").first.wait_for()
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
