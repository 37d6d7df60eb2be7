"""What a model says never runs, never loads anything, and links only to the web."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from page_actions import ask, shown, wait_ready, wait_state
from stub_server import POLICY, saying

PAGE = files("rtp_core.server") / "page"
ATTACKS = [
    "<script>window.pwned = true</script>",
    "<img src=x onerror='window.pwned = true'>",
    "<img src=https://evil.example/pixel.png>",
    "![pixel](https://evil.example/pixel.png)",
    "<svg onload='window.pwned = true'></svg>",
    "[click](javascript:window.pwned=true)",
    "[click](data:text/html,<script>window.pwned=true</script>)",
    "<a href='javascript:window.pwned=true'>click</a>",
    "<iframe src='https://evil.example'></iframe>",
    "<style>@import 'https://evil.example/a.css'</style>",
    "```html\n<script>window.pwned = true</script>\n```",
    "`<script>window.pwned = true</script>`",
    "<b onclick=window.pwned=true>bold</b>",
]


@pytest.mark.browser
def test_markup_in_model_output_stays_text(open_page, stub):
    page = wait_ready(open_page(stub.url))
    for attack in ATTACKS:
        stub.replies.append(saying(f"Before.\n\n{attack}"))
        ask(page, attack)  # the user's own words are text too
        shown_text = shown(wait_state(page, "done"))
        payload = attack.strip("`").removeprefix("html\n").strip()
        assert payload in shown_text or not payload.startswith("<")
    made = page.locator("#messages :is(script, img, iframe, style, b, svg:not(.icon))")
    assert made.count() == 0
    hrefs = page.locator("#messages a").evaluate_all("links => links.map((link) => link.href)")
    assert hrefs
    assert all(re.match(r"https?://", href) for href in hrefs)
    assert page.evaluate("window.pwned") is None
    # open_page fails the test on a foreign request or a violation of the policy.


@pytest.mark.browser
def test_an_engine_document_with_markup_stays_text(open_page, stub):
    stub.plugins["effective"]["features"][0]["reason"] = ATTACKS[1]
    stub.plugins["data"][0]["summary"] = ATTACKS[0]
    stub.stats["requests"][0]["id"] = ATTACKS[1]
    page = wait_ready(open_page(stub.url))
    page.locator("#features").get_by_text(ATTACKS[1]).wait_for()
    page.locator("#requests .toggle").first.click()
    page.locator("#requests .details").get_by_text(ATTACKS[1]).wait_for()
    assert page.evaluate("window.pwned") is None
    assert page.locator("#engine img").count() == 0


@pytest.mark.browser
def test_links_open_apart_and_tell_nothing(open_page, stub):
    page = wait_ready(open_page(stub.url))
    stub.replies.append(saying("[home](https://example.org/a_b) and https://example.org/c."))
    ask(page, "Go")
    links = wait_state(page, "done").locator("a")
    read = "link => [link.href, link.target, link.rel]"
    found = [links.nth(place).evaluate(read) for place in range(2)]
    rel = "noopener noreferrer nofollow"
    assert found == [
        ["https://example.org/a_b", "_blank", rel],
        ["https://example.org/c", "_blank", rel],
    ]


def test_no_file_of_the_page_needs_more_than_its_policy_allows():
    assert "unsafe" not in POLICY
    for file in PAGE.iterdir():
        source = file.read_text(encoding="utf-8")
        addresses = re.findall(r"""["'(]((?:https?:)?//[\w.-]+)""", source)
        assert set(addresses) <= {"http://www.w3.org"}, file.name  # a namespace, never fetched
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", source
        )
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", source), file.name
        assert not re.search(r"""(?:src|href)="/""", source), file.name  # works below a root path
        assert len(source.splitlines()) < 300, file.name


def test_the_page_is_package_data_beside_the_server():
    assert (PAGE / "index.html").is_file()
    linked = re.findall(r'"static/([\w.]+)"', (PAGE / "index.html").read_text(encoding="utf-8"))
    assert {"app.js", "style.css", "favicon.svg"} <= set(linked)
    assert all((PAGE / name).is_file() for name in linked)
