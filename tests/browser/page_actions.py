"""What a person does on the page, and what is read from it."""

from __future__ import annotations

from typing import Any

PROMPT = "#prompt"
PHONE = {"width": 390, "height": 844}
LAST_REPLY = ".reply:last-child"


def wait_ready(page: Any) -> Any:
    page.wait_for_selector("#pill[data-phase=ready]")
    return page


def ask(page: Any, question: str) -> Any:
    """Type and press Enter; the reply's element."""
    page.fill(PROMPT, question)
    page.press(PROMPT, "Enter")
    page.wait_for_selector(LAST_REPLY)
    return page.locator(LAST_REPLY)


def wait_state(page: Any, state: str) -> Any:
    """The last reply once it is in `state`."""
    page.wait_for_selector(f"{LAST_REPLY}[data-state={state}]")
    return page.locator(LAST_REPLY)


def wait_text(page: Any, text: str) -> None:
    """Until the last reply shows `text`."""
    page.locator(f"{LAST_REPLY} .markdown", has_text=text).wait_for()


def shown(reply: Any) -> str:
    return reply.locator(".markdown").inner_text()


def overflow(page: Any) -> list[str]:
    """What scrolls sideways, except code and tables, which scroll in a box of their own."""
    return page.evaluate(
        """() => [...document.querySelectorAll("*")]
          .filter((node) => !node.matches("pre, .table-scroll, textarea, input"))
          .filter((node) => node === document.scrollingElement ||
            /auto|scroll/.test(getComputedStyle(node).overflowX))
          .filter((node) => node.scrollWidth > node.clientWidth)
          .map((node) => `${node.tagName} ${node.id}: ${node.scrollWidth}`)"""
    )
