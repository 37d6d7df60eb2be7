"""Settings, keys, themes, directions of text, and what the chat says about its context."""

from __future__ import annotations

import threading

import pytest
from page_actions import PROMPT, ask, shown, wait_ready, wait_state, wait_text
from stub_server import ROLE, Reply, chunk, event, saying, text, usage

pytestmark = pytest.mark.browser

SAMPLING = {
    "Temperature": ("temperature", "0.25", 0.25),
    "Top-p": ("top_p", "0.9", 0.9),
    "Top-k": ("top_k", "40", 40),
    "Min-p": ("min_p", "0.05", 0.05),
    "Max tokens": ("max_tokens", "64", 64),
    "Seed": ("seed", "7", 7),
    "Frequency penalty": ("frequency_penalty", "-0.5", -0.5),
    "Presence penalty": ("presence_penalty", "1.5", 1.5),
    "Repetition penalty": ("repetition_penalty", "1.1", 1.1),
}


@pytest.fixture
def page(open_page, stub):
    return wait_ready(open_page(stub.url))


def test_all_settings_reach_the_server_under_its_names(page, stub):
    page.click("#settings-toggle")
    for label, (_, typed, _) in SAMPLING.items():
        page.get_by_label(label).fill(typed)
    page.get_by_label("Stop, one a line").fill("END\n\nSTOP HERE\n")
    page.get_by_role("button", name="Done").click()
    ask(page, "Go")
    wait_state(page, "done")
    body = stub.bodies[-1]
    assert {name: body[name] for name, _, _ in SAMPLING.values()} == {
        name: value for name, _, value in SAMPLING.values()
    }
    assert body["stop"] == ["END", "STOP HERE"]


def test_settings_survive_a_reload_and_a_reset_empties_them(page, stub):
    page.click("#settings-toggle")
    page.get_by_label("Top-k").fill("40")
    page.get_by_label("Stop, one a line").fill("END")
    page.reload()
    wait_ready(page)
    assert page.locator("#settings-summary").inner_text() == "top-k 40 · 1 stop"
    page.click("#settings-toggle")
    assert page.get_by_label("Stop, one a line").input_value() == "END"
    page.get_by_role("button", name="Reset").click()
    page.get_by_text("server defaults", exact=True).wait_for()
    page.get_by_role("button", name="Done").click()
    ask(page, "Go")
    wait_state(page, "done")
    assert not {"top_k", "stop"} & set(stub.bodies[-1])


def test_five_stop_sequences_are_one_too_many(page, stub):
    page.click("#settings-toggle")
    page.get_by_label("Stop, one a line").fill("a\nb\nc\nd\ne")
    page.get_by_role("button", name="Done").click()
    assert page.locator("#settings").is_visible()
    page.keyboard.press("Control+Enter")
    ask(page, "Go")
    wait_state(page, "done")
    assert "stop" not in stub.bodies[-1]


def test_keys_are_listed_and_work(page):
    page.keyboard.press("Control+/")
    listed = page.locator("#shortcuts").inner_text()
    for what in ("Send the message", "New line", "Stop the reply", "Settings", "Next view"):
        assert what in listed
    page.keyboard.press("Escape")
    assert page.locator("#shortcuts").is_hidden()
    page.keyboard.press("Control+.")
    assert page.evaluate("document.activeElement.name") == "system"
    page.keyboard.press("Control+.")
    assert page.locator("#settings").is_hidden()
    views = []
    for _ in range(3):
        page.keyboard.press("Control+\\")
        views.append(page.locator("body").get_attribute("data-view"))
    assert views == ["engine", "chat", "split"]


def test_the_last_message_is_edited_from_an_empty_box_only(page, stub):
    page.press(PROMPT, "ArrowUp")  # nothing to edit yet
    assert page.evaluate("document.activeElement.id") == "prompt"
    ask(page, "First")
    wait_state(page, "done")
    page.fill(PROMPT, "half written")
    page.press(PROMPT, "ArrowUp")
    assert page.get_by_label("Edit message").count() == 0
    page.fill(PROMPT, "")
    page.press(PROMPT, "ArrowUp")
    assert page.get_by_label("Edit message").input_value() == "First"


def test_a_chosen_theme_is_there_before_the_page_is(page):
    page.click("#settings-toggle")
    page.get_by_label("Theme").select_option("dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(13, 17, 23)"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(background) == "rgb(13, 17, 23)"
    page.click("#settings-toggle")
    page.get_by_label("Theme").select_option("system")
    assert page.evaluate(background) == "rgb(244, 246, 248)"


def test_each_block_runs_in_its_own_direction(page, stub):
    arabic = "مرحبا `code` هنا\n\n- واحد\n- اثنان\n\n> قول\n\nEnglish again.\n\n- one"
    stub.replies.append(saying(arabic))
    ask(page, "سؤال؟")
    blocks = wait_state(page, "done").locator(".markdown > *")
    assert blocks.evaluate_all(
        "all => all.map((one) => `${one.tagName} ${getComputedStyle(one).direction}`)"
    ) == ["P rtl", "UL rtl", "BLOCKQUOTE rtl", "P ltr", "UL ltr"]
    assert page.locator(".bubble").evaluate("one => getComputedStyle(one).direction") == "rtl"


def test_how_full_the_context_is_follows_the_conversation(page, stub):
    assert page.locator("#context").is_hidden()
    ending = [event({"choices": [], "usage": usage(7_000, 600)}), b"data: [DONE]\n\n"]
    stub.replies.append(Reply([ROLE, text("Long."), chunk({}, "stop"), *ending]))
    ask(page, "Go")
    wait_state(page, "done")
    meter = page.locator("#context")
    assert meter.inner_text() == "Context 93 %"
    assert meter.get_attribute("title") == "7,600 of 8,192 tokens"
    assert "bad" in meter.get_attribute("class")
    page.get_by_role("button", name="Clear chat").click()
    assert meter.is_hidden()


def test_thinking_is_open_while_it_lasts_and_says_how_long_it_took(page, stub):
    gate = threading.Event()
    steps = [ROLE, chunk({"reasoning": "Let me see."}), gate, text("Four."), chunk({}, "stop")]
    stub.replies.append(Reply([*steps, b"data: [DONE]\n\n"]))
    reply = ask(page, "Two and two?")
    reply.get_by_text("Thinking…").wait_for()
    assert reply.locator(".thought").is_visible()
    gate.set()
    wait_state(page, "done")
    assert reply.locator("summary").inner_text().startswith("Thought for ")
    assert not reply.locator(".thought").is_visible()
    reply.locator("summary").click()
    assert reply.locator(".thought").inner_text() == "Let me see."


def test_copying_works_without_the_newer_clipboard(open_page, stub):
    page = open_page(stub.url)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    wait_ready(page)
    stub.replies.append(saying("Take this."))
    ask(page, "Go")
    wait_state(page, "done")
    page.evaluate("document.addEventListener('copy', () => (window.taken = `${getSelection()}`))")
    page.get_by_role("button", name="Copy reply").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("window.taken") == "Take this."
    page.get_by_role("button", name="Copy reply").wait_for()  # after a moment it is itself again


def test_still_pages_for_those_who_want_no_motion(open_page, stub):
    page = wait_ready(open_page(stub.url, reduced_motion="reduce"))
    stub.replies.append(Reply([ROLE, text("Partial"), threading.Event()]))
    ask(page, "Go")
    wait_text(page, "Partial")
    moving = page.evaluate("document.getAnimations().filter((one) => one.playState == 'running')")
    assert moving == []
    page.keyboard.press("Escape")
    assert shown(wait_state(page, "stopped")) == "Partial"


def test_three_hundred_turns_stay_quick(open_page, stub):
    page = open_page(stub.url)
    page.add_init_script(
        """{ const messages = [];
          for (let turn = 0; turn < 300; turn += 1) {
            messages.push({ role: "user", content: `Question ${turn}` });
            const content = "A **word** and `code`.\\n\\n- one\\n- two\\n\\n".repeat(6);
            messages.push({ role: "assistant", content, reasoning: "", state: "done", stats: {} });
          }
          sessionStorage.setItem("rtp:/:messages", JSON.stringify(messages)); }"""
    )
    page.reload()
    wait_ready(page)
    assert page.locator(".message").count() == 600
    at_end = "log.scrollHeight - log.scrollTop - log.clientHeight < 2"
    assert page.evaluate(at_end)
    skipped = "document.querySelector('.bubble').checkVisibility({ contentVisibilityAuto: true })"
    assert page.evaluate(skipped) is False  # what is far above is not laid out
    ask(page, "One more")
    wait_state(page, "done")
    assert page.evaluate(at_end)
