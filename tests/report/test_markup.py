from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from stseg3d.report.formats import bytes_text, count_text, metric_text, seconds_text, volume_text
from stseg3d.report.markup import Markup, data_block, element, join
from stseg3d.report.plots import distribution, shares

EVIL = "\"'><script>alert(1)</script>&amp;"


def test_text_and_attributes_never_become_markup():
    made = element("p", EVIL, title=EVIL, data_x=EVIL)
    tree = ElementTree.fromstring(made)
    assert (tree.text, tree.get("title"), tree.get("data-x"), len(tree)) == (EVIL, EVIL, EVIL, 0)
    assert join(Markup("<b>"), EVIL).startswith("<b>&quot;")


def test_attributes_that_stand_alone_and_those_left_out():
    assert element("input", name="a", hidden=True, checked=False, class_=None) == '<input name="a" hidden>'
    assert element("p", None, 0, "") == "<p>0</p>"


def test_json_in_a_block_cannot_end_it():
    made = data_block(json.dumps({"a": "</script><!--"}), "x", "application/json")
    text = made.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><!--"}


@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_distributions_tell_every_case_or_their_counts(count):
    values = {f"{EVIL}{n}": float(n % 11) for n in range(count)}
    tree = ElementTree.fromstring(distribution(EVIL, values, "{:.0f} ml".format))
    svg = tree.find("svg")
    dots = svg.findall("circle")
    assert len(dots) == (count if count < 100 else 0)
    assert not dots or dots[0].find("title").text == f"{EVIL}0: 0 ml"
    assert svg.get("aria-label") == f"{EVIL} of {count} cases: 0 ml to {min(count - 1, 10)} ml, median {np_median(values)} ml"
    inside = [(float(d.get("cx")), float(d.get("cy"))) for d in dots]
    inside += [(float(r.get("x")), float(r.get("y"))) for r in svg.findall("rect")]
    assert all(0 < x < 320 and 0 < y < 120 for x, y in inside)


def np_median(values):
    ordered = sorted(values.values())
    return f"{(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2:.0f}"


def test_shares_fill_the_bar():
    tree = ElementTree.fromstring(shares({"open": 1.0, "fine": 3.0}, seconds_text))
    assert [(r.get("x"), r.get("width")) for r in tree.findall("rect")] == [("0.00", "25.00"), ("25.00", "75.00")]
    assert tree.get("aria-label") == "open 1.0 s, fine 3.0 s"
    assert shares({"open": 0.0}, seconds_text)


def test_numbers_as_people_read_them():
    assert [seconds_text(s) for s in (0, 0.001, 0.42, 4.25, 42, 185, 7800, None)] == [
        *("0.00 s", "< 0.01 s", "0.42 s", "4.2 s", "42 s", "3 min 5 s", "2 h 10 min"),
        "–",  # noqa: RUF001
    ]
    assert [bytes_text(b) for b in (730 * 2**20, 1.5 * 2**30, None)] == ["730 MiB", "1.5 GiB", "–"]  # noqa: RUF001
    assert [volume_text(v) for v in (0, 0.3214, 35.66, 1204.4)] == ["0 ml", "0.321 ml", "35.7 ml", "1204 ml"]
    assert [metric_text(v, u) for v, u in ((0.91234, ""), (2.345, "mm"), (-17472.4, "mm3"), (3, ""), (float("nan"), ""))] == [
        *("0.912", "2.35 mm", "−17472 mm³", "3"),  # noqa: RUF001
        "–",  # noqa: RUF001
    ]
    assert [count_text(*c) for c in ((1, "case"), (2, "case"), (3, "box"))] == ["1 case", "2 cases", "3 boxes"]
