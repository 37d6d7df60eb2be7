"""Images for the model: refused with the reason while there is no encoder, sent when there is."""

from __future__ import annotations

import base64

import pytest
from page_actions import LAST_REPLY, PROMPT, ask, wait_ready, wait_state

pytestmark = pytest.mark.browser

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
URL = "data:image/gif;base64," + base64.b64encode(GIF).decode()
DROP = """([target, name, type, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, { type }));
  for (const kind of ["dragover", "drop"]) {
    const options = { dataTransfer: data, bubbles: true, cancelable: true };
    document.querySelector(target).dispatchEvent(new DragEvent(kind, options));
  }
}"""
SMALL_STORAGE = """() => {
  const store = Storage.prototype.setItem;
  Storage.prototype.setItem = function (name, value) {
    if (value.length > 100_000) throw new DOMException("full", "QuotaExceededError");
    store.call(this, name, value);
  };
}"""
PASTE = """([bytes]) => {
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File([new Uint8Array(bytes)], "shot.gif", { type: "image/gif" }));
  const options = { clipboardData, bubbles: true, cancelable: true };
  document.getElementById("prompt").dispatchEvent(new ClipboardEvent("paste", options));
}"""


@pytest.fixture
def off(open_page, stub):
    """A page whose server has no encoder."""
    page = wait_ready(open_page(stub.url))
    page.wait_for_selector("#attach[title*='is empty']")
    return page


@pytest.fixture
def page(open_page, stub):
    """A page whose server has one."""
    for feature in stub.plugins["effective"]["features"]:
        if feature["role"] == "encoder":
            feature["on"] = feature["offer"] == "vision"
    page = wait_ready(open_page(stub.url))
    page.wait_for_selector("#attach[aria-disabled=false]")
    return page


def drop(page, name="dot.gif", kind="image/gif", target="#log", content=GIF):
    page.evaluate(DROP, [target, name, kind, list(content)])


def picked(name="dot.gif", kind="image/gif", content=GIF):
    return {"name": name, "mimeType": kind, "buffer": content}


def test_without_an_encoder_a_drop_is_refused_with_the_reason(off):
    drop(off)
    said = off.locator("#notice").inner_text()
    assert said == "Images are off: modality.encoders is empty; vision is broken: needs API 2.0."
    assert off.locator("#attachments li").count() == 0
    off.locator(PROMPT).press_sequentially("a")
    assert off.locator("#notice").inner_text() == ""  # said once


def test_without_an_encoder_the_button_explains_itself_to_everyone(off):
    button = off.locator("#attach")
    assert button.get_attribute("aria-disabled") == "true"
    assert "modality.encoders is empty" in button.get_attribute("aria-label")
    button.focus()
    off.keyboard.press("Enter")
    assert "Images are off" in off.locator("#notice").inner_text()


def test_an_image_is_sent_as_a_part_before_the_text(page, stub):
    drop(page)
    page.wait_for_selector("#attachments img")
    ask(page, "What is this?")
    wait_state(page, "done")
    assert stub.bodies[-1]["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": URL}},
                {"type": "text", "text": "What is this?"},
            ],
        }
    ]
    assert page.locator("#attachments li").count() == 0
    assert page.locator(".user img").get_attribute("alt") == "dot.gif"


def test_an_image_needs_no_words(page, stub):
    page.evaluate(PASTE, [list(GIF)])
    page.wait_for_selector("#attachments img")
    page.press(PROMPT, "Enter")
    page.wait_for_selector(LAST_REPLY)
    wait_state(page, "done")
    (part,) = stub.bodies[-1]["messages"][0]["content"]
    assert part["type"] == "image_url"


def test_several_picks_add_up_and_one_can_be_removed(page):
    page.set_input_files("#attach-field", [picked("a.gif"), picked("b.gif")])
    page.wait_for_selector("#attachments li:nth-child(2)")
    page.set_input_files("#attach-field", [picked("c.gif")])
    page.wait_for_selector("#attachments li:nth-child(3)")
    page.get_by_role("button", name="Remove b.gif").click()
    images = page.locator("#attachments img")
    assert [images.nth(place).get_attribute("alt") for place in range(2)] == ["a.gif", "c.gif"]
    assert page.evaluate("document.activeElement.id") == "prompt"


def test_what_is_no_image_or_too_much_is_named_and_left_out(page):
    drop(page, "notes.pdf", "application/pdf")
    assert "notes.pdf was not added: only PNG" in page.locator("#notice").inner_text()
    drop(page, "huge.png", "image/png", content=b"")
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          const huge = new File([new Uint8Array(21 * 2 ** 20)], "big.png", { type: "image/png" });
          data.items.add(huge);
          const options = { dataTransfer: data, bubbles: true, cancelable: true };
          document.getElementById("log").dispatchEvent(new DragEvent("drop", options));
        }"""
    )
    page.get_by_text("big.png was not added: images of a message may be 20 MiB").wait_for()
    page.set_input_files("#attach-field", [picked(f"{place}.gif") for place in range(9)])
    page.get_by_text("at most 8 images").wait_for()


def test_a_drop_beside_the_chat_does_not_leave_the_page(page):
    address = page.url
    drop(page, target="#engine")
    assert page.url == address
    assert page.locator("#attachments li").count() == 0


def test_an_edited_message_keeps_its_images(page, stub):
    drop(page)
    page.wait_for_selector("#attachments img")
    ask(page, "First")
    wait_state(page, "done")
    page.press(PROMPT, "ArrowUp")  # in an empty message: edit the last one
    page.get_by_label("Edit message").fill("Second")
    page.keyboard.press("Enter")
    wait_state(page, "done")
    image, words = stub.bodies[-1]["messages"][0]["content"]
    assert (image["image_url"]["url"], words["text"]) == (URL, "Second")


def test_images_too_large_to_remember_do_not_cost_the_conversation(page):
    page.evaluate(SMALL_STORAGE)
    page.set_input_files("#attach-field", [picked("large.gif", content=GIF + bytes(99_000))])
    page.wait_for_selector("#attachments img")
    ask(page, "Look")
    wait_state(page, "done")
    page.reload()
    wait_state(page, "done")
    assert page.locator(".user").inner_text().startswith("large.gif (not kept)")
    assert "Look" in page.locator(".user").inner_text()
