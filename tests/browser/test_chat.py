"""The chat against a scripted server."""

from __future__ import annotations

import threading

import pytest
from page_actions import PROMPT, ask, shown, wait_ready, wait_state, wait_text
from stub_server import ROLE, Reply, chunk, ending, event, refusing, saying, text

pytestmark = pytest.mark.browser


@pytest.fixture
def page(open_page, stub):
    return wait_ready(open_page(stub.url, allow={400, 429}))


def test_text_is_shown_before_the_stream_ends(page, stub):
    gate = threading.Event()
    stub.replies.append(Reply([ROLE, text("First half"), gate, text(", second half."), *ending()]))
    reply = ask(page, "Go")
    wait_text(page, "First half")
    assert reply.get_attribute("data-state") == "streaming"
    assert reply.get_attribute("aria-busy") == "true"
    gate.set()
    wait_state(page, "done")
    assert shown(reply) == "First half, second half."
    assert reply.get_attribute("aria-busy") == "false"


def test_the_numbers_of_a_reply_come_from_the_server_and_the_clock(page, stub):
    steps = [ROLE, 0.2, text("one"), 0.3, text(" two"), *ending(tokens=31, finish="length")]
    stub.replies.append(Reply(steps))
    ask(page, "Go")
    reply = wait_state(page, "done")
    names = reply.locator(".numbers dt").all_inner_texts()
    values = dict(zip(names, reply.locator(".numbers dd").all_inner_texts(), strict=True))
    assert values["Tokens"] == "31"
    assert values["Cached"] == "8 of 12"
    assert values["Finish"] == "length"
    assert 190 <= float(values["First token"].removesuffix(" ms")) < 900
    # Thirty tokens after the first, in 0.3 s: at most a hundred a second.
    assert 30 < float(values["Speed"].removesuffix(" tok/s")) <= 101


def test_stop_keeps_the_text_and_closes_the_connection(page, stub):
    stub.replies.append(Reply([ROLE, text("Partial"), threading.Event()]))
    ask(page, "Go")
    wait_text(page, "Partial")
    page.click("#send[data-mode=stop]")
    reply = wait_state(page, "stopped")
    assert stub.hung_up.wait(2)
    assert shown(reply) == "Partial"
    assert page.locator("#send").get_attribute("aria-label") == "Send"


def test_a_running_and_a_stopped_reply_count_their_tokens(page, stub):
    steps = [ROLE, text("One", 1), 0.1, text(" two", 5), threading.Event()]
    stub.replies.append(Reply(steps))
    reply = ask(page, "Go")
    reply.locator("dd", has_text="tok/s").wait_for()
    assert "Writing" in reply.locator(".numbers").inner_text()
    page.keyboard.press("Escape")
    numbers = wait_state(page, "stopped").locator(".numbers").inner_text().split("\n")
    assert numbers[numbers.index("Tokens") + 1] == "5"
    assert numbers[numbers.index("Finish") + 1] == "stopped"


def test_a_stopped_text_is_part_of_the_next_request(page, stub):
    stub.replies.append(Reply([ROLE, text("Partial"), threading.Event()]))
    ask(page, "Go")
    wait_text(page, "Partial")
    page.click("#send[data-mode=stop]")
    wait_state(page, "stopped")
    ask(page, "And on")
    wait_state(page, "done")
    assert [message["content"] for message in stub.bodies[-1]["messages"]] == [
        "Go",
        "Partial",
        "And on",
    ]


def test_regenerate_replaces_the_last_reply(page, stub):
    stub.replies += [saying("One."), saying("Two.")]
    ask(page, "Go")
    wait_text(page, "One.")
    page.get_by_role("button", name="Regenerate").click()
    wait_text(page, "Two.")
    assert page.locator(".reply").count() == 1
    assert stub.bodies[0]["messages"] == stub.bodies[1]["messages"]


def test_editing_a_message_drops_what_followed_it(page, stub):
    stub.replies += [saying("One."), saying("Two."), saying("Three.")]
    for question in ("First", "Second"):
        ask(page, question)
        wait_state(page, "done")
    page.locator(".user").first.hover()
    page.locator(".user").first.get_by_role("button", name="Edit").click()
    page.get_by_label("Edit message").fill("Changed")
    page.keyboard.press("Enter")
    wait_text(page, "Three.")
    assert page.locator(".message").count() == 2
    assert stub.bodies[-1]["messages"] == [{"role": "user", "content": "Changed"}]


def test_clearing_forgets_the_conversation(page, stub):
    ask(page, "Go")
    wait_state(page, "done")
    page.get_by_role("button", name="Clear chat").click()
    assert page.locator(".message").count() == 0
    assert page.locator("#empty").is_visible()
    page.reload()
    assert page.locator(".message").count() == 0


def test_a_reload_keeps_the_conversation(page):
    ask(page, "Go")
    before = shown(wait_state(page, "done"))
    page.reload()
    assert shown(wait_state(page, "done")) == before
    assert page.evaluate("localStorage.length") == 0


def test_settings_are_sent_and_empty_ones_are_not(page, stub):
    page.click("#settings-toggle")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.25")
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Done").click()
    ask(page, "Go")
    wait_state(page, "done")
    body = stub.bodies[-1]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["seed"]) == (0.25, 7)
    assert not {"top_p", "max_tokens"} & set(body)
    assert body["stream_options"]["include_usage"] is True
    assert "temp 0.25" in page.locator("#settings-summary").inner_text()


def test_a_value_out_of_bounds_is_marked_and_not_sent(page, stub):
    page.click("#settings-toggle")
    page.get_by_label("Temperature").fill("3")
    page.get_by_role("button", name="Done").click()
    assert page.locator("#settings").is_visible()
    ask(page, "Go")
    wait_state(page, "done")
    assert "temperature" not in stub.bodies[-1]


def test_a_refusal_says_what_to_do(page, stub):
    message = "maximum context length is 8192 tokens"
    stub.replies.append(refusing(400, message, code="context_length_exceeded"))
    ask(page, "Go")
    problem = wait_state(page, "failed").get_by_role("alert").inner_text()
    assert message in problem
    assert "Clear the chat" in problem


def test_a_full_queue_says_when_to_come_back_and_can_be_retried(page, stub):
    stub.replies += [refusing(429, "Too many requests."), saying("Now.")]
    ask(page, "Go")
    assert "Try again in 7 s." in wait_state(page, "failed").inner_text()
    page.get_by_role("button", name="Try again").click()
    wait_text(page, "Now.")


def test_an_error_inside_the_stream_keeps_the_text(page, stub):
    failure = event({"error": {"message": "The engine stopped.", "type": "server_error"}})
    stub.replies.append(Reply([ROLE, text("So far"), failure, b"data: [DONE]\n\n"]))
    ask(page, "Go")
    reply = wait_state(page, "failed")
    assert shown(reply) == "So far"
    assert "The engine stopped." in reply.get_by_role("alert").inner_text()


def test_a_stream_without_its_end_is_reported(page, stub):
    stub.replies.append(Reply([ROLE, text("So far")]))
    ask(page, "Go")
    reply = wait_state(page, "failed")
    assert shown(reply) == "So far"
    assert "cut off" in reply.get_by_role("alert").inner_text()


def test_characters_cut_by_the_network_arrive_whole(page, stub):
    sentence = "Zürich – 漢字 – 👩‍🚀"
    pieces = []
    for byte in text(sentence):
        pieces += [bytes([byte]), 0.002]
    stub.replies.append(Reply([ROLE, b": keep-alive\n\n", *pieces, *ending()]))
    ask(page, "Go")
    assert shown(wait_state(page, "done")) == sentence


def test_thinking_is_folded_away_once_the_answer_begins(page, stub):
    steps = [ROLE, chunk({"reasoning": "Let me see."}), text("Four."), *ending()]
    stub.replies.append(Reply(steps))
    ask(page, "Two and two?")
    reply = wait_state(page, "done")
    assert shown(reply) == "Four."
    assert reply.locator("summary").is_visible()
    assert not reply.locator(".thought").is_visible()


def test_a_call_is_shown_as_text_and_can_be_read(page, stub):
    name, arguments = "get_weather", '{"city": "<img src=x onerror=alert(1)>"}'
    begin = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name}}
    pieces = [
        {"index": 0, "function": {"arguments": part}} for part in (arguments[:9], arguments[9:])
    ]
    steps = [chunk({"tool_calls": [one]}) for one in (begin, *pieces)]
    stub.replies.append(Reply([ROLE, *steps, *ending(finish="tool_calls")]))
    ask(page, "Weather?")
    reply = wait_state(page, "done")
    assert reply.locator(".call figcaption").inner_text() == "Called get_weather"
    assert "<img src=x onerror=alert(1)>" in reply.locator(".call pre").inner_text()
    assert reply.locator(".call img").count() == 0
    assert "no text" not in reply.inner_text()
    assert "tool_calls" in reply.inner_text()


def test_the_log_follows_only_a_reader_at_its_end(page, stub):
    gate = threading.Event()
    lines = text("\n\n".join(f"Line {number}" for number in range(80)))
    stub.replies.append(Reply([ROLE, lines, gate, lines, text("\n\nThe end"), *ending()]))
    ask(page, "Go")
    wait_text(page, "Line 79")
    at_end = "(log.scrollHeight - log.scrollTop - log.clientHeight) < 2"
    page.wait_for_function(at_end)
    page.locator("#log").hover()
    page.mouse.wheel(0, -600)
    page.wait_for_selector("#to-bottom", state="visible")
    place = page.evaluate("log.scrollTop")
    gate.set()
    wait_text(page, "The end")
    assert page.evaluate("log.scrollTop") == place
    page.click("#to-bottom")
    page.wait_for_function(at_end)


def test_the_page_works_by_keyboard_alone(page, stub):
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two")
    stub.replies.append(Reply([ROLE, text("Partial"), threading.Event()]))
    page.keyboard.press("Enter")
    wait_text(page, "Partial")
    page.keyboard.press("Escape")
    wait_state(page, "stopped")
    assert stub.bodies[0]["messages"][0]["content"] == "One\nTwo"
    assert stub.hung_up.wait(2)
    _press_until_focused(page, "#settings-toggle")
    page.keyboard.press("Enter")
    assert page.locator("#settings").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#settings").is_visible()
    _press_until_focused(page, "[data-view-button=engine]")
    page.keyboard.press("Enter")
    assert page.locator("#chat").is_hidden()
    assert page.locator("#engine").is_visible()


def _press_until_focused(page, selector: str) -> None:
    for _ in range(60):
        if page.evaluate("one => document.activeElement.matches(one)", selector):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid"  # a focus ring
            return
        page.keyboard.press("Tab")
    pytest.fail(f"{selector} cannot be reached by Tab")


def test_every_field_and_button_has_a_name(page):
    page.click("#settings-toggle")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, select")]
          .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_enter_during_composition_does_not_send(page, stub):
    page.fill(PROMPT, "にほん")
    page.evaluate(
        """() => document.getElementById("prompt").dispatchEvent(
          new KeyboardEvent("keydown", {key: "Enter", isComposing: true, bubbles: true}))"""
    )
    assert page.locator(".message").count() == 0
    assert stub.bodies == []
