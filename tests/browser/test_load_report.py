"""The page of a load test in a browser: fits, reads in both schemes, asks nobody, runs nothing."""

from __future__ import annotations

import pytest
from page_actions import PHONE, overflow

from rtp_core.bench.client import Record
from rtp_core.bench.page import page
from rtp_core.bench.report import Report, Subject
from rtp_core.bench.service_level import serve_results
from rtp_core.bench.traffic import Traffic

pytestmark = pytest.mark.browser
HOSTILE = "<script>document.title='owned'</script>\" onload=alert(1) <img src=//evil.example/x>"


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    records = []
    for number in range(60):
        sent = 100 + 0.2 * number
        pieces = [sent + 0.1 + 0.03 * at for at in range(20)]
        failed = number % 20 == 19
        records.append(
            Record(
                sent, 20, sent, [] if failed else pieces, pieces[-1], 128, 0, 0 if failed else 20,
                "http 503" if failed else None, not failed,
            )
        )  # fmt: skip
    traffic = Traffic(records, 100.0, max(one.end_s for one in records), 0.1)
    report = Report("serve", Subject(HOSTILE, "remote"), {HOSTILE: HOSTILE, "long": "x" * 250})
    report.results = serve_results(traffic, {})
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(page(report, traffic), encoding="utf-8")
    return file


@pytest.fixture
def shown(chromium, report_file):
    contexts = []

    def show(**how):
        context = chromium.new_context(**how)
        contexts.append(context)
        opened, told = context.new_page(), []
        opened.on("console", lambda message: told.append(message.text))
        opened.on("pageerror", lambda error: told.append(str(error)))
        opened.on("dialog", lambda dialog: told.append("a dialog"))
        opened.on("request", lambda request: told.append(request.url))
        opened.goto(report_file.as_uri())
        assert told == [report_file.as_uri()]
        return opened

    yield show
    for context in contexts:
        context.close()


@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 800}], ids=["phone", "desk"])
def test_it_fits_and_shows_every_chart(shown, viewport):
    opened = shown(viewport=viewport)
    assert overflow(opened) == []
    drawn = opened.locator("svg")
    assert drawn.count() == 6
    for number in range(6):
        box = drawn.nth(number).bounding_box()
        assert box["width"] > 300
        assert box["height"] > 80
    assert opened.title().startswith("rtp bench serve: <script>")


def test_labels_can_be_read_on_a_phone(shown):
    opened = shown(viewport=PHONE)
    heights = opened.locator("svg text").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= 9


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_ground_in_both_schemes(shown, scheme):
    opened = shown(viewport=PHONE, color_scheme=scheme)
    for selector in ("h1", "p", ".label", ".note", "td"):
        paint = "fill" if selector == ".label" else "color"
        assert contrast(opened, selector, paint) >= 4.5, selector


def contrast(opened, selector, paint):
    colours = opened.evaluate(
        """([selector, paint]) => {
            const one = document.querySelector(selector);
            let ground = one;
            while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)")
                ground = ground.parentElement;
            return [getComputedStyle(one)[paint], getComputedStyle(ground).backgroundColor]
                .map(text => text.match(/[0-9.]+/g).slice(0, 3).map(Number));
        }""",
        [selector, paint],
    )
    high, low = sorted((luminance(colour) for colour in colours), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (one / 255 for one in colour)
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
