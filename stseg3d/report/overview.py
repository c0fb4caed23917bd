"""The top of the page: counts of cases by state, distributions of their numbers, and the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path

from stseg3d.evaluate import bootstrap_interval
from stseg3d.report.formats import bytes_text, count_text, metric_text, seconds_text, volume_text
from stseg3d.report.gather import DONE, EMPTY, FAILED
from stseg3d.report.look import THUMBNAIL, Look
from stseg3d.report.markup import Markup, element, join
from stseg3d.report.plots import distribution

STATES = {DONE: "done", EMPTY: "nothing found", FAILED: "failed"}
MIN_CASES = 2  # for a distribution


def overview(looks: Sequence[Look]) -> Markup:
    """Counts, distributions and the table of all cases."""
    return element("section", _tiles(looks), _plots(looks), _table(looks), id="overview", aria_label="All cases")


def volume_ml(look: Look) -> float | None:
    """Total volume of the segmentation; None for a case without result."""
    volumes = look.record.known.volume_ml
    return None if look.record.state == FAILED and not volumes else sum(volumes.values())


def badge(state: str) -> Markup:
    """State of a case in words, with a colour."""
    return element("span", STATES[state], class_=f"badge {state}")


def _tiles(looks: Sequence[Look]) -> Markup:
    states = [look.record.state for look in looks]
    tiles = [(str(len(looks)), "case" if len(looks) == 1 else "cases", "")]
    tiles += [(str(states.count(state)), STATES[state], state) for state in STATES if state in states]
    seconds = [look.record.seconds for look in looks if look.record.seconds is not None]
    tiles += [(seconds_text(sum(seconds)), "of computing", "")] if seconds else []
    scored = [look.scores["dice"] for look in looks if "dice" in look.scores]
    if scored:
        mean = bootstrap_interval(scored)
        interval = "" if isnan(mean.low) else f", 95 % interval {mean.low:.3f} to {mean.high:.3f}"
        tiles.append((metric_text(mean.mean), f"mean Dice of {count_text(len(scored), 'case')}{interval}", "score"))
    items = [element("li", element("b", value), " ", element("span", what), class_=f"tile {kind}".strip()) for value, what, kind in tiles]
    return element("ul", *items, class_="tiles")


def _plots(looks: Sequence[Look]) -> Markup | None:
    good = {look.record.name: look for look in looks if look.record.state != FAILED}
    columns: list[tuple[str, dict[str, float | None], Callable[[float | None], str]]] = [
        ("Volume found", {name: volume_ml(look) for name, look in good.items()}, volume_text),
        ("Time", {name: look.record.seconds for name, look in good.items()}, seconds_text),
        ("Peak memory", {name: look.record.peak_memory_bytes for name, look in good.items()}, bytes_text),
        ("Dice", {name: look.scores.get("dice") for name, look in good.items()}, metric_text),
    ]
    known = [(title, {name: v for name, v in values.items() if v is not None}, text) for title, values, text in columns]
    plots = [distribution(title, values, text) for title, values, text in known if len(values) >= MIN_CASES]
    if not plots:
        return None
    return element(
        "section", element("h2", "Over all cases", id="spread"), element("div", *plots, class_="plots"), aria_labelledby="spread"
    )


def _table(looks: Sequence[Look]) -> Markup:
    scored = any(look.scores for look in looks)
    heads = [("Case", "text", ""), ("State", "text", "wide"), ("Boxes", "number", "wide"), ("Volume", "number", "")]
    heads += [("Dice", "number", ""), ("HD95", "number", "wide")] if scored else []
    heads += [("Time", "number", "wide" if scored else ""), ("Memory", "number", "wide"), ("Warnings", "number", "wide")]
    cells = [element("th", element("span", "Picture", class_="unseen"), scope="col", class_="picture")]
    for n, (title, kind, extra) in enumerate(heads, 1):
        button = element("button", title, type="button", data_column=n, data_kind=kind)
        cells.append(element("th", button, scope="col", class_=f"{kind} {extra}".strip(), aria_sort="none"))
    rows = [_row(n, look, scored=scored) for n, look in enumerate(looks)]
    table = element(
        "table",
        element("caption", "All cases; a heading sorts by its column", class_="unseen"),
        element("thead", element("tr", *cells)),
        element("tbody", *rows),
    )
    search = element(
        "div",
        element("label", "Search", for_="search"),
        element("input", type="search", id="search", placeholder="name, state, reason", autocomplete="off"),
        element("output", count_text(len(looks), "case"), id="shown", for_="search"),
        class_="search",
    )
    return element("section", element("h2", "Cases", id="cases", tabindex=-1), search, table, aria_labelledby="cases")


def _row(n: int, look: Look, *, scored: bool) -> Markup:
    record = look.record
    link = element("a", record.name, href=f"#case-{n}")
    # The table shows the name, so the folder is left out of the reason.
    folder = f"{Path(record.input).parent}/"
    reason = element("p", record.reason.replace(folder, ""), class_="reason") if record.reason else None
    warnings = len(record.known.warnings) + len(record.remarks)
    numbers = [(volume_ml(look), volume_text(volume_ml(look)), "")]
    if scored:
        dice, hd95 = look.scores.get("dice"), look.scores.get("hd95_mm")
        numbers += [(dice, metric_text(dice), ""), (hd95, metric_text(hd95, "mm"), "wide")]
    numbers += [
        (record.seconds, seconds_text(record.seconds), "wide" if scored else ""),
        (record.peak_memory_bytes, bytes_text(record.peak_memory_bytes), "wide"),
        (warnings, str(warnings), "wide"),
    ]
    boxes = None if record.state == FAILED else record.known.box_count
    return element(
        "tr",
        element("td", _thumbnail(look), class_="picture"),
        element("th", link, element("span", badge(record.state), class_="narrow"), reason, scope="row", data_value=record.name),
        element("td", badge(record.state), class_="wide", data_value=STATES[record.state]),
        _number(boxes, "–" if boxes is None else str(boxes), "wide"),  # noqa: RUF001
        *(_number(*number) for number in numbers),
    )


def _number(value: float | None, text: str, extra: str = "") -> Markup:
    return element("td", text, class_=f"number {extra}".strip(), data_value="" if value is None or isnan(value) else f"{value:.9g}")


def _thumbnail(look: Look) -> Markup:
    if look.thumbnail is None:
        return element("span", class_="blank", aria_hidden="true")
    source = f"data:image/jpeg;base64,{look.thumbnail.jpeg}"
    # No alternative text: the case's name is beside it.
    return element("img", src=source, alt="", width=THUMBNAIL // 2, height=THUMBNAIL // 2, loading="lazy", decoding="async")


def joined(parts: Sequence[object]) -> Markup:
    """Pieces separated by dots."""
    return join(*(piece for n, part in enumerate(parts) for piece in ((" · ", part) if n else (part,))))
