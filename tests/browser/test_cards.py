"""The cards of the engine panel, against invented numbers."""

from __future__ import annotations

import re

import engine_data
import pytest
from page_actions import PHONE, ask, overflow, wait_ready, wait_state
from stub_server import saying

pytestmark = pytest.mark.browser


@pytest.fixture
def page(open_page, stub):
    return wait_ready(open_page(stub.url))


def row_of(page, role):
    return page.locator(f"#features tr[data-role={role}]")


def cell(row, name):
    return row.locator(f"[data-column={name}]").inner_text()


def test_a_role_has_its_offer_reason_plugin_and_memory(page):
    row_of(page, "kv_store").wait_for()
    speculation = row_of(page, "speculator")
    assert cell(speculation, "offer") == "ngram"
    assert "speculation.methods" in cell(speculation, "why")
    assert cell(speculation, "plugin") == "core.speculation 0.1.0"
    assert cell(row_of(page, "kv_store"), "memory") == "1.5 GiB"
    speculation.locator("summary").click()
    assert "eagle no draft head fits this model" in cell(speculation, "why")


def test_a_role_that_is_off_says_why_and_what_would_fill_it(page):
    images = row_of(page, "encoder")
    assert images.get_attribute("class") == "off"
    assert "modality.encoders is empty" in cell(images, "why")
    assert "tcp shm not installed (pip install rtp-pd)" in cell(row_of(page, "transport"), "why")
    order = page.locator("#features tbody tr").evaluate_all(
        "all => all.map((one) => one.className)"
    )
    assert order == sorted(order, reverse=True)  # what is on comes first


def test_a_role_this_page_does_not_know_is_shown_by_its_name(open_page, stub):
    new = engine_data.feature("kv_teleport", "warp", "kvwarp", True, "because")
    stub.plugins["effective"]["features"].append(new)
    page = wait_ready(open_page(stub.url))
    assert cell(row_of(page, "kv_teleport"), "role") == "kv teleport"


def test_features_at_a_glance_lead_to_their_row(page):
    chips = page.locator(".feature-chips button")
    chips.first.wait_for()
    words = [re.sub(r"\s+", " ", text) for text in chips.all_inner_texts()]
    assert words[-2:] == ["Images off", "KV transport off"]
    assert "Speculation ngram" in words
    chips.filter(has_text="Images").click()
    assert row_of(page, "encoder").evaluate("row => row === document.activeElement")


def test_broken_plugins_and_run_time_errors_stand_out(open_page, stub):
    stub.stats["engine"]["plugin_errors"] = {"kvquant": 3}
    page = wait_ready(open_page(stub.url))
    broken = page.locator("#plugins li", has_text="vision").first
    assert broken.locator(".state").inner_text() == "broken"
    assert "needs API 2.0" in broken.inner_text()
    assert "3 errors" in page.locator("#plugins li", has_text="kvquant").first.inner_text()


def test_the_cache_is_split_by_tier_and_format(page):
    cache = page.locator("#cache")
    cache.get_by_text("host", exact=True).wait_for()
    said = cache.inner_text()
    assert "room for 69,904 tokens" in said
    assert "1,616 of 4,369 blocks in use · 37 % · 568 MiB" in said
    assert "half of the memory left" in said
    assert "55 % of prompt tokens" in said
    parts = cache.locator(".tier").first.locator(".bar i")
    widths = parts.evaluate_all("all => all.map((part) => parseFloat(part.style.width))")
    expected = [100 * blocks / 4369 for blocks in (812, 702, 640, 96, 164)]  # held, kept, held, …
    assert widths == pytest.approx(expected, abs=0.1)


def test_tiers_and_formats_nobody_thought_of_are_shown(open_page, stub):
    stub.stats["engine"]["blocks"] = {"device/fp6": 4, "moon/nf3": 7, "odd": 2, "deep/a/b": 1}
    stub.stats["engine"]["cached_blocks"] = {"moon/nf3": 5}
    stub.stats["history"] = []
    page = wait_ready(open_page(stub.url))
    page.locator("#cache").get_by_text("moon", exact=True).wait_for()
    tiers = page.locator("#cache .tier")
    assert [one.split("\n")[0] for one in tiers.all_inner_texts()] == [
        "device",
        "moon",
        "odd",
        "deep",
    ]
    assert "nf3, kept for reuse 5" in re.sub(r"\s+", " ", tiers.nth(1).inner_text())


def test_speculation_is_told_as_a_gain_and_by_method(page):
    card = page.locator("#speculation")
    said = card.inner_text()
    assert "2.48 tokens per step" in said  # 1 + 17900 / 12100
    assert "37 % of drafted tokens accepted" in said
    assert "up to ×1.24 over all tokens" in said  # 92144 / (92144 - 17900)
    rows = card.locator("tbody tr").all_inner_texts()
    assert rows == [
        "ngram\t7,800\t31,200\t12,400\t40 %\t2.59",
        "suffix\t4,300\t17,200\t5,500\t32 %\t2.28",
    ]
    assert "Running requests: ngram for 2." in said


def test_a_server_that_counts_less_by_method_shows_what_it_counts(open_page, stub):
    del stub.stats["speculation"]
    page = wait_ready(open_page(stub.url))
    page.locator("#speculation tbody tr").first.wait_for()
    rows = page.locator("#speculation tbody tr").all_inner_texts()
    assert rows[0] == "ngram\t–\t–\t12,400\t–\t–"
    stub.stats["engine"]["spec_method_tokens"] = {"ngram": 17_900}
    page.locator("#speculation", has_text="12,100").wait_for()
    (only,) = page.locator("#speculation tbody tr").all_inner_texts()
    assert only == "ngram\t12,100\t48,400\t17,900\t37 %\t2.48"


def test_an_unused_speculator_is_off_with_its_reason(open_page, stub):
    for name in ("spec_drafts", "spec_draft_tokens", "spec_accepted_tokens"):
        stub.stats["engine"][name] = 0
    for feature in stub.plugins["effective"]["features"]:
        feature["on"] = feature["role"] != "speculator"
    off = engine_data.feature("speculator", None, None, False, "speculation.methods is empty")
    stub.plugins["effective"]["features"].append(off)
    page = wait_ready(open_page(stub.url))
    page.locator("#speculation").get_by_text("Off: speculation.methods is empty.").wait_for()


def test_latencies_have_units_and_none_is_not_zero(open_page, stub):
    stub.stats["latency"]["e2e_s"] = {"p50": 0.0, "p95": 0.0, "p99": 0.0, "n": 0}
    page = wait_ready(open_page(stub.url))
    row = page.locator("#latency tbody tr").nth(0).inner_text()
    assert row.split("\t")[1:] == ["142 ms", "610 ms", "1.20 s", "656"]
    none = page.locator("#latency tbody tr").nth(2).inner_text()
    assert none.split("\t")[1:] == ["–", "–", "–", "0"]


def test_charts_draw_history_and_read_out_under_the_pointer(page):
    picture = page.locator(".chart svg").first
    page.wait_for_function("document.querySelector('.chart .line').getAttribute('d').length > 500")
    box = picture.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    times = page.locator(".chart-time").all_inner_texts()
    assert ":" in times[0]
    assert set(times) == {times[0]}  # one cursor through all charts
    assert "Generation" in picture.get_attribute("aria-label")
    page.get_by_role("button", name="10 min").click()
    assert page.locator(".chart-axis").first.inner_text().startswith("−10 min")


def test_charts_are_walked_through_by_keyboard(page):
    picture = page.get_by_role("slider", name="First token over time")
    picture.focus()
    page.keyboard.press("ArrowLeft")
    latest = picture.get_attribute("aria-valuetext")
    assert re.match(r"\d\d:\d\d:\d\d: p50 ", latest)
    page.keyboard.press("ArrowLeft")
    assert picture.get_attribute("aria-valuetext") != latest
    page.keyboard.press("Escape")
    assert page.locator(".chart-time").first.inner_text() == ""


def test_a_second_without_requests_is_a_gap_and_not_zero(open_page, stub):
    for place, sample in enumerate(stub.stats["history"]):
        if place % 60 > 30:
            sample["ttft_s"] = None
    page = wait_ready(open_page(stub.url))
    page.get_by_role("button", name="10 min").click()
    line = page.locator("#latency .line").first.get_attribute("d")
    assert 9 <= line.count("M") <= 11


def test_requests_have_a_timeline_in_true_proportions(page):
    row = page.locator("#requests tbody", has_text="chatcmpl-00007bbc")
    row.wait_for()
    label = row.locator(".timeline").get_attribute("aria-label")
    assert label.startswith("queued 300 ms, prefill 130 ms, decode")
    widths = row.locator(".timeline i").evaluate_all(
        "parts => parts.map((part) => parseFloat(part.style.width))"
    )
    assert widths[0] == 0
    assert widths[1] / widths[2] == pytest.approx(0.3 / 0.13, rel=0.02)


def test_a_request_opens_to_its_details_by_keyboard(page):
    first = page.locator("#requests .toggle").first
    first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    said = page.locator("#requests .details:visible").inner_text().split("\n")
    facts = dict(zip(said[::2], said[1::2], strict=True))
    assert facts["Id"] == "chatcmpl-00007bbc"
    assert facts["Queued"] == "300 ms"
    assert facts["Prefill"] == "130 ms for 72 tokens"
    assert facts["Decode"] == "1.22 s for 55 tokens (44.2 tok/s)"
    assert facts["Drafts"] == "ngram, 4 ahead, 32 %"
    assert page.locator("#requests .toggle[tabindex='0']").count() == 1


def test_running_requests_come_first_and_leave_when_they_end(page, stub):
    rows = page.locator("#requests tbody")
    rows.first.wait_for()
    assert rows.first.get_attribute("class") == "running"
    label = rows.first.locator(".timeline").get_attribute("aria-label")
    assert label == "waiting 400 ms"
    stub.stats["requests"] = stub.stats["requests"][2:]
    page.locator("#requests .running").first.wait_for(state="detached")


def test_a_poll_keeps_the_rows_it_knows(page, stub):
    page.locator("#requests tbody").first.wait_for()
    stub.stats["requests"] = stub.stats["requests"][2:]
    page.locator("#requests .running").first.wait_for(state="detached")
    page.evaluate("document.querySelector('#requests tbody').dataset.mark = 'kept'")
    newer = {**stub.stats["requests"][0], "id": "chatcmpl-new"}
    newer["started_unix_s"] += 1
    stub.stats["requests"].append(newer)
    page.locator("#requests tbody", has_text="chatcmpl-new").wait_for()
    assert page.locator("#requests tbody").nth(1).get_attribute("data-mark") == "kept"


def test_polls_ask_for_what_is_new_and_keep_the_rest(page, stub):
    rows = page.locator("#requests tbody").count()
    before = len(stub.sinces)
    while len(stub.sinces) < before + 2:
        page.wait_for_timeout(50)
    newest = stub.stats["history"][-1]["t_unix_s"]
    assert stub.sinces[0] == 0
    assert stub.sinces[-1] == pytest.approx(newest, abs=5)
    assert page.locator("#requests tbody").count() == rows
    assert page.locator(".chart .line").first.get_attribute("d").count("L") > 30


def test_a_server_started_anew_is_asked_for_everything(page, stub):
    page.locator("#requests tbody").first.wait_for()
    stub.stats.update(uptime_s=1.0, requests=[], history=engine_data.history(2e9, 5))
    page.get_by_text("No requests yet.").wait_for()
    assert stub.sinces[-1] == 0 or stub.sinces[-2] == 0


def test_a_reply_leads_to_its_request(page):
    ask(page, "Go")
    wait_state(page, "done")
    page.locator(".reply .numbers", has_text="ngram 38 %").wait_for()  # the server tells it later
    page.get_by_role("button", name="Timeline").click()
    assert "request-1" in page.locator("#requests .details:visible").inner_text()
    assert page.locator("#requests .toggle:focus").count() == 1


def test_a_reply_leads_to_its_request_on_a_phone(open_page, stub):
    page = wait_ready(open_page(stub.url, viewport=PHONE))
    ask(page, "Go")
    wait_state(page, "done")
    page.get_by_role("button", name="Timeline").click()
    page.locator("#requests .details", has_text="request-1").wait_for()
    assert overflow(page) == []


def test_an_engine_that_has_done_nothing_yet_shows_no_nonsense(open_page, stub):
    stub.stats.update(history=[], requests=[], latency={}, engine={"num_blocks": 10})
    del stub.stats["speculation"]
    page = wait_ready(open_page(stub.url))
    page.get_by_text("No requests yet.").wait_for()
    said = page.locator("#engine").inner_text()
    assert not {"NaN", "undefined", "null", "Infinity"} & set(said.replace(",", " ").split())


def test_long_names_of_everything_fit_at_every_width(open_page, stub):
    features = stub.plugins["effective"]["features"]
    features[0]["reason"] = "x" * 200
    features[1]["offer"] = features[5]["offer"] = "y" * 80
    stub.plugins["data"][0]["summary"] = "z" * 200
    method = stub.stats["speculation"]["methods"].pop("suffix")
    stub.stats["speculation"]["methods"]["method" * 12] = method
    stub.stats["engine"]["blocks"]["tier" * 12 + "/" + "format" * 12] = 3
    stub.stats["requests"][2]["id"] = "i" * 128
    page = wait_ready(open_page(stub.url))
    stub.replies.append(
        saying(f"{engine_data.DEMO_REPLY}\n\n{'unbreakable' * 40}\n\n`{'x' * 300}`")
    )
    ask(page, "long " + "w" * 300)
    wait_state(page, "done")
    page.evaluate("for (const one of document.querySelectorAll('#engine .toggle')) one.click()")
    for width in (320, 390, 768, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 844})
        for view in ("chat", "engine"):
            page.click(f"[data-view-button={view}]")
            assert overflow(page) == [], (width, view)
