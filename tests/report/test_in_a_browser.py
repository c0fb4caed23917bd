"""The page in Chromium: it sorts, opens cases, draws volumes, obeys the keyboard, asks no network, and fits a phone."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest

from stseg3d.report import write_report
from tests.report.browser import Browser, find_chromium
from tests.report.made_up import journal, write_case, write_labels_folder

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=\"document.title='hacked'\">"


@pytest.fixture(scope="module")
def chromium():
    pytest.importorskip("websocket", reason="needs websocket-client: pip install 'stseg3d[test]'")
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium found; STSEG3D_CHROMIUM names one")
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    base = tmp_path_factory.mktemp("browser")
    out = base / "out"
    for n, seconds in enumerate((3.0, 1.0, 20.0)):
        write_case(out, f"case_{n}", seed=n, seconds={"open": 0.1, "fine": seconds, "total": seconds + 0.1})
    write_case(out, "flat", flat=True)
    write_case(out, "nothing", empty=True, warnings=[EVIL])
    journal(out, {"case": f"bad {EVIL}", "state": "failed", "reason": f"it ends early </script></template>{EVIL}"})
    labels = write_labels_folder(base / "labels", ["case_0", "case_1"])
    return {kind: write_report(out, base / f"{kind}.html", labels=labels, volumes=kind)[0] for kind in ("embed", "link")}


@pytest.fixture(scope="module")
def browser(chromium):
    with Browser(chromium) as one:
        yield one


@pytest.fixture
def page(browser, pages):
    browser.events.clear()
    browser.screen(1024, 640)  # SwiftShader works for every pixel
    browser.open("about:blank")
    browser.open(pages["embed"])
    yield browser
    assert browser.complaints() == []
    assert browser.requests() == [pages["embed"].resolve().as_uri()]  # itself, and nothing else


def names(page):
    return page.evaluate("[...document.querySelectorAll('tbody th a')].filter(a => a.offsetParent).map(a => a.textContent)")


def open_case(page, name):
    page.click(f"tbody tr:nth-child({names(page).index(name) + 1}) th a")
    page.wait("!document.getElementById('case').hidden")


def shown(page):
    """Pixels of the viewer, as on the screen."""
    from PIL import Image  # of matplotlib

    page.wait("document.querySelector('.viewer[data-ready]') !== null")
    page.evaluate("document.querySelector('.stage').scrollIntoView({block: 'center', behavior: 'instant'})")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box = "document.querySelector('.stage').getBoundingClientRect()"
    clip = page.evaluate(f"(r => [r.x + scrollX, r.y + scrollY, r.width, r.height])({box})")
    region = dict(zip(("x", "y", "width", "height"), clip, strict=True)) | {"scale": 1}
    png = page.call("Page.captureScreenshot", format="png", clip=region)["data"]
    return np.asarray(Image.open(BytesIO(base64.b64decode(png))).convert("RGB")).astype(int)


def coloured(pixels, colour, tolerance=40):
    """Share of the pixels near a colour."""
    return float((np.abs(pixels - colour).max(axis=-1) < tolerance).mean())


def test_a_click_opens_a_case_and_the_viewer_draws_it(page):
    open_case(page, "case_1")
    assert page.evaluate("document.activeElement.textContent") == "case_1"
    pixels = shown(page)
    assert pixels.std() > 20
    assert coloured(pixels, (250, 237, 140)) > 0.001  # boxes
    blue = (pixels[..., 2] - pixels[..., 0] > 40).mean()
    assert blue > 0.01  # the segmentation
    page.click("[data-layer=labels]")
    page.click("[data-layer=boxes]")
    without = shown(page)
    assert coloured(without, (250, 237, 140)) == 0
    assert (without[..., 2] - without[..., 0] > 40).mean() < 0.2 * blue
    page.click("[data-layer=rough]")
    assert (shown(page)[..., 0] - shown(page)[..., 1] > 40).mean() > 0.01
    for view in ("axial", "coronal", "sagittal", "render"):
        before = shown(page)
        page.click(f"[data-view={view}]")
        assert page.evaluate("document.querySelectorAll('[data-view][aria-pressed=true]').length") == 1
        assert np.abs(shown(page) - before).mean() > 1, view


def test_one_case_after_the_other_and_back_where_one_was(page):
    open_case(page, "case_0")
    first = shown(page)
    page.evaluate("[...document.querySelectorAll('.way a')].find(a => a.textContent === 'Next case').click()")
    page.wait("document.querySelector('#case h2').textContent === 'case_1'")
    assert np.abs(shown(page) - first).mean() > 0.1  # other noise
    page.evaluate("document.querySelector('.back').click()")
    page.wait("document.getElementById('case').hidden")
    assert page.evaluate("document.title").startswith("out ")


def test_flat_images_are_one_plane_and_nothing_found_has_a_viewer_too(page):
    open_case(page, "flat")
    assert shown(page).std() > 20
    assert page.evaluate("[...document.querySelectorAll('[data-view]')].every(b => b.hidden)")
    page.evaluate("location.hash = ''")
    page.wait("document.getElementById('case').hidden")
    open_case(page, "nothing")
    assert shown(page).std() > 5
    assert page.evaluate("document.querySelector('[data-layer=labels]').hidden")


def test_text_of_cases_stays_text(page):
    open_case(page, f"bad {EVIL}")
    assert page.evaluate("document.querySelector('#case h2').textContent") == f"bad {EVIL}"
    assert EVIL in page.evaluate("document.querySelector('#case .note.failed').textContent")
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert "hacked" not in page.evaluate("document.title").split("–")[-1]  # noqa: RUF001


def test_headings_sort_by_number_and_by_name_and_what_has_none_is_last(page):
    def click(title):
        page.evaluate(f"[...document.querySelectorAll('thead button')].find(b => b.textContent === '{title}').setAttribute('id', 'it')")
        page.click("#it")
        page.evaluate("document.getElementById('it').removeAttribute('id')")

    click("Time")
    timed = [n for n in names(page) if n.startswith("case")]
    assert timed == ["case_1", "case_0", "case_2"]
    assert names(page)[-1].startswith("bad")
    click("Time")
    assert [n for n in names(page) if n.startswith("case")] == timed[::-1]
    assert names(page)[-1].startswith("bad")
    sorts = page.evaluate("[...document.querySelectorAll('thead [aria-sort]')].map(h => h.getAttribute('aria-sort'))")
    assert sorted(set(sorts)) == ["descending", "none"]
    assert sorts.count("descending") == 1
    click("Case")
    assert names(page)[1:] == ["case_0", "case_1", "case_2", "flat", "nothing"]


def test_search_hides_rows_and_says_how_many_are_left(page):
    page.evaluate("document.getElementById('search').focus()")
    page.call("Input.insertText", text="CASE done")
    assert names(page) == ["case_0", "case_1", "case_2"]
    assert page.evaluate("document.getElementById('shown').textContent") == "3 of 6 cases"


def test_all_of_it_from_the_keyboard(page):
    seen = []
    for _ in range(40):
        page.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent || document.activeElement.id"))
        style = page.evaluate("(s => [s.outlineStyle, s.outlineWidth])(getComputedStyle(document.activeElement))")
        assert style == ["solid", "3px"], seen[-1]
        if seen[-1] == "case_0":
            break
    assert seen[:4] == ["Skip to the cases", "search", "Case", "State"]
    page.press("Enter")
    page.wait("document.querySelector('#case h2')?.textContent === 'case_0'")
    before = shown(page)
    page.evaluate("document.querySelector('.stage canvas').focus()")
    page.press("PageUp")
    page.press("ArrowLeft")
    assert np.abs(shown(page) - before).mean() > 0.1
    page.press("Tab")  # the canvas lets the focus go
    assert page.evaluate("document.activeElement.tagName") != "CANVAS"
    page.call("Page.navigateToHistoryEntry", entryId=page.call("Page.getNavigationHistory")["entries"][-2]["id"])
    page.wait("document.getElementById('case').hidden")
    assert page.evaluate("document.activeElement.textContent") == "case_0"


@pytest.mark.parametrize("width", [360, 390, 768])
def test_narrow_screens_need_no_scrolling_sideways(page, width):
    page.screen(width, 640, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for name in names(page):
        open_case(page, name)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") == width, name
        page.evaluate("location.hash = ''")
        page.wait("document.getElementById('case').hidden")


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(page, dark):
    page.screen(1024, 640, dark=dark)
    lowest = {}
    for hash_ in ("", "#case-1", "#case-5", "#case-0"):
        page.evaluate(f"location.hash = '{hash_}'")
        page.wait(f"document.getElementById('case').hidden === {str(not hash_).lower()}")
        for text, ratio in page.evaluate(CONTRAST):
            lowest[text] = min(ratio, lowest.get(text, 21))
    assert len(lowest) > 60
    assert {text: ratio for text, ratio in lowest.items() if ratio < 4.5} == {}  # WCAG 2.2, 1.4.3


# Contrast of each element's own text with the nearest ground behind it, by WCAG's formula.
CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
  };
  const found = [];
  for (const e of document.body.querySelectorAll("*")) {
    const own = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!own || !e.checkVisibility() || ["SCRIPT", "NOSCRIPT", "TITLE"].includes(e.tagName) || e.closest(".skip")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(rgb(e.closest("svg") ? style.fill : style.color)), light(ground(e))].sort((x, y) => y - x);
    found.push([own, (a + 0.05) / (b + 0.05)]);
  }
  return found;
})()"""


def test_volumes_beside_the_page_are_read_from_disk_when_a_case_is_opened(browser, pages):
    browser.events.clear()
    browser.screen(1024, 640)  # SwiftShader works for every pixel
    browser.open("about:blank")
    browser.open(pages["link"])
    assert len(browser.requests()) == 1
    open_case(browser, "case_2")
    assert shown(browser).std() > 20
    assert [url.rsplit("/", 1)[-1] for url in browser.requests()[1:]] == ["3.js"]
    assert browser.complaints() == []


def test_without_webgl_the_page_says_so_and_the_pictures_stay(chromium, pages):
    with Browser(chromium, "--disable-gpu", "--disable-3d-apis") as bare:
        bare.open(pages["embed"])
        open_case(bare, "case_0")
        bare.wait("document.querySelector('.stage p').textContent.includes('WebGL 2')")
        assert bare.evaluate("[...document.querySelectorAll('.figures img')].every(i => i.complete && i.naturalWidth > 0)")
