"""The Markdown renderer, run in the browser on its own."""

from __future__ import annotations

import time

import pytest
from stub_server import Stub

pytestmark = pytest.mark.browser

RENDER = """async (text) => {
  const { MarkdownView } = await import("./static/markdown.js");
  const view = new MarkdownView();
  view.update(text);
  for (const head of view.root.querySelectorAll(".code-head")) head.remove();
  return view.root.innerHTML.replace(/ (tabindex|rel|target|title|dir)="[^"]*"/g, "");
}"""


@pytest.fixture(scope="module")
def page(chromium):
    stub = Stub()
    page = chromium.new_page()
    page.goto(stub.url)
    yield page
    page.close()
    stub.close()


@pytest.fixture
def render(page):
    return lambda text: page.evaluate(RENDER, text)


BECOMES = {
    "plain": "<p>plain</p>",
    "one\n\ntwo\nlines": "<p>one</p><p>two\nlines</p>",
    "# Title #": "<h3>Title</h3>",
    "a **b** *c*": "<p>a <strong>b</strong> <em>c</em></p>",
    "__d__ _e_ ~~f~~": "<p><strong>d</strong> <em>e</em> <del>f</del></p>",
    "***both***": "<p><strong><em>both</em></strong></p>",
    "*a **b** c*": "<p><em>a <strong>b</strong> c</em></p>",
    "snake_case_name and 2 * 3 * 4": "<p>snake_case_name and 2 * 3 * 4</p>",
    "**open": "<p>**open</p>",
    "`a*b*` and ``x ` y``": "<p><code>a*b*</code> and <code>x ` y</code></p>",
    r"\*not em\* C:\dir": r"<p>*not em* C:\dir</p>",
    "---": "<hr>",
    "> quote\n> more": "<blockquote><p>quote\nmore</p></blockquote>",
    "- a\n- b\n  - c\n- d": "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>",
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "1. a\n\n   more\n\n2. b": "<ol><li>a<p>more</p></li><li>b</li></ol>",
    "- a\n\nafter": "<ul><li>a</li></ul><p>after</p>",
    "```py\nx = '<b>'\n\n# y\n```\nafter": (
        "<div class=\"code\"><pre><code>x = '&lt;b&gt;'\n\n# y</code></pre></div><p>after</p>"
    ),
    "```\nopen *so far*": '<div class="code"><pre><code>open *so far*</code></pre></div>',
    "- a\n  ```\n  code\n  ```": (
        '<ul><li>a<div class="code"><pre><code>code</code></pre></div></li></ul>'
    ),
    "[t](https://a.example/b)": '<p><a href="https://a.example/b">t</a></p>',
    "[t](/v1/models) [u](javascript:x)": "<p>[t](/v1/models) [u](javascript:x)</p>",
    "<b>x</b> &amp;": "<p>&lt;b&gt;x&lt;/b&gt; &amp;amp;</p>",
    "| a | b |\n|---|---|\n| 1 | *2* |": (
        '<div class="table-scroll"><table><thead><tr><th>a</th><th>b</th></tr></thead>'
        "<tbody><tr><td>1</td><td><em>2</em></td></tr></tbody></table></div>"
    ),
}


@pytest.mark.parametrize("source", BECOMES)
def test_source_becomes(render, source):
    assert render(source) == BECOMES[source]


@pytest.mark.parametrize("piece", ["*a ", "[", "**", "_a", "`", "> ", "- ", "![](", "~~x ", "# "])
def test_hostile_repetition_takes_no_time(render, piece):
    began = time.monotonic()
    render(piece * 20_000)
    assert time.monotonic() - began < 2


def test_a_growing_text_keeps_the_nodes_of_finished_blocks(page):
    kept = page.evaluate(
        """async () => {
          const { MarkdownView } = await import("./static/markdown.js");
          const view = new MarkdownView();
          view.update("first\\n\\nsec");
          const first = view.root.firstChild;
          view.update("first\\n\\nsecond\\n\\n- third");
          return view.root.firstChild === first && view.root.children.length === 3;
        }"""
    )
    assert kept
