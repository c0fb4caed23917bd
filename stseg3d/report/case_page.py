"""The part of the page for one case: pictures, viewer, times, scores, boxes, dropped components, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence

from stseg3d.metrics import METRICS
from stseg3d.report.formats import DASH, bytes_text, count_text, metric_text, seconds_text, volume_text
from stseg3d.report.gather import EMPTY, FAILED
from stseg3d.report.look import Look, Shot
from stseg3d.report.markup import Markup, element, join
from stseg3d.report.overview import badge, volume_ml
from stseg3d.report.plots import shares, swatch
from stseg3d.results.notes import NOTES_SUFFIX, NotedBox

LEGEND = {"labels": "segmentation", "rough": "rough mask", "truth": "truth", "boxes": "boxes"}
WIDE_FACTS = {"Image": "long", "Bundle": "broad"}  # facts on a line of their own: always, or only on narrow screens
MAX_ROWS = 50  # of a table of boxes; the JSON has all


def case_page(n: int, look: Look, *, viewer: bool) -> Markup:
    """Template with the details of a case, which the page's script opens.

    Args:
        n: Index of the case in the table.
        look: Content of the case.
        viewer: Whether there are volumes for the viewer.
    """
    record = look.record
    heading = element("header", element("h2", record.name, tabindex=-1), badge(record.state), class_="case-head")
    parts = [
        heading,
        _messages(look),
        _facts(look),
        _pictures(look) if look.shots else None,
        _viewer(n, record.name) if viewer else None,
        element("div", _times(look), _scores(look), class_="columns"),
        _boxes("Boxes", record.known.boxes, record.known.box_count),
        _boxes("Dropped", record.known.dropped, record.known.dropped_count),
        _details("What was recorded", element("pre", record.notes.text)) if record.notes else None,
    ]
    return element("template", element("article", *parts), id=f"template-{n}", data_name=record.name)


def _messages(look: Look) -> Markup:
    record = look.record
    notes = [element("p", element("b", "Failed: "), record.reason, class_="note failed")] if record.state == FAILED else []
    if record.state == EMPTY:
        notes.append(element("p", element("b", "Nothing found: "), "the segmentation is empty.", class_="note empty"))
    warnings = [*record.known.warnings[:MAX_ROWS], *_more(len(record.known.warnings))]
    notes += [element("p", element("b", "Warning: "), sentence, class_="note warning") for sentence in warnings]
    notes += [element("p", element("b", "Note: "), sentence, class_="note") for sentence in record.remarks]
    return join(*notes)


def _facts(look: Look) -> Markup:
    record, notes = look.record, look.record.known
    found = count_text(len(notes.volume_ml), "label" if notes.kind != "instances" else "instance")
    facts: dict[str, object] = {
        "Image": record.image or record.input or DASH,
        "Size": _by(notes.grid.shape, "voxels"),
        "Spacing": _by(notes.grid.spacing_mm, "mm"),
        "Found": f"{volume_text(volume_ml(look))} in {found}" if notes.volume_ml else DASH,
        "Boxes": f"{notes.box_count} from {notes.boxes_from}" if record.state != FAILED else DASH,
        "Bundle": " ".join(str(notes.bundle.get(key, "")) for key in ("name", "version")).strip() or DASH,
        "Device": notes.device or DASH,
        "Time": seconds_text(record.seconds),
        "Peak memory": bytes_text(record.peak_memory_bytes),
    }
    if record.attempts > 1:
        facts["Attempts"] = record.attempts
    known = [(title, value) for title, value in facts.items() if value != DASH]
    rows = (element("div", element("dt", title), element("dd", value), class_=WIDE_FACTS.get(title)) for title, value in known)
    return element("dl", *rows, class_="facts")


def _by(values: Sequence[float], unit: str) -> str:
    return f"{' × '.join(f'{v:g}' for v in values)} {unit}" if values else DASH  # noqa: RUF001


def _more(count: int) -> list[str]:
    return [f"… and {count - MAX_ROWS} more, in {NOTES_SUFFIX.lstrip('_')}"] if count > MAX_ROWS else []


def _pictures(look: Look) -> Markup:
    figures = [_figure(shot, look) for shot in look.shots]
    legend = [element("li", element("i", class_=f"key {name}"), LEGEND[name]) for name in LEGEND if name in look.drawn]
    body = element("div", *figures, class_="figures" if len(figures) > 1 else "figures one")
    return element("section", element("h3", "Pictures"), body, element("ul", *legend, class_="legend"))


def _figure(shot: Shot, look: Look) -> Markup:
    title = shot.title or "whole image"
    what = ", ".join(LEGEND[name] for name in LEGEND if name in look.drawn) or "no outlines, nothing was found"
    image = element(
        "img",
        src=f"data:image/jpeg;base64,{shot.jpeg}",
        alt=f"{look.record.name}, {title}, with {what}",
        width=shot.width,
        height=shot.height,
        decoding="async",
    )
    return element("figure", image, element("figcaption", title[0].upper() + title[1:]))


def _viewer(n: int, name: str) -> Markup:
    views = [("multi", "All"), ("axial", "Axial"), ("coronal", "Coronal"), ("sagittal", "Sagittal"), ("render", "3-D")]
    layers = [("labels", "Segmentation"), ("rough", "Rough mask"), ("boxes", "Boxes")]
    choose = [element("button", text, type="button", data_view=key, aria_pressed=str(key == "multi").lower()) for key, text in views]
    switch = [element("button", text, type="button", data_layer=key, aria_pressed=str(key != "rough").lower()) for key, text in layers]
    tools = element(
        "div",
        element("div", *choose, role="group", aria_label="View"),
        element("div", *switch, role="group", aria_label="Layers"),
        class_="tools",
    )
    stage = element("div", element("p", "Loading the volumes …", role="status"), class_="stage", data_label=f"Volumes of {name}")
    hint = element(
        "p",
        "Smaller copies of image and segmentation. Drag to move the crosshair or to turn the body, wheel to scroll; from the keyboard "
        "arrow keys and page up and down.",
        class_="hint",
    )
    return element("section", element("h3", "Volumes"), tools, stage, hint, class_="viewer", data_case=n, hidden=False)


def _times(look: Look) -> Markup | None:
    parts = look.record.known.stage_seconds
    if not parts:
        return None
    peaks = look.record.known.stage_peak_bytes
    heads = ["stage", "time", *(["peak memory until its end"] if peaks else [])]
    rows = []
    for n, (name, seconds) in enumerate(parts.items()):
        cells = [element("td", text, class_="number") for text in (seconds_text(seconds), bytes_text(peaks.get(name)))[: 1 + bool(peaks)]]
        rows.append(element("tr", element("th", swatch(n), name, scope="row"), *cells))
    head = element(
        "thead", element("tr", *(element("th", text, scope="col", class_="number" if n else None) for n, text in enumerate(heads)))
    )
    return element(
        "section", element("h3", "Stages"), shares(parts, seconds_text), element("table", head, element("tbody", *rows), class_="plain")
    )


def _scores(look: Look) -> Markup | None:
    if not look.scores:
        return None
    rows = [
        element(
            "tr", element("th", METRICS[name].title, scope="row"), element("td", metric_text(value, METRICS[name].unit), class_="number")
        )
        for name, value in look.scores.items()
    ]
    return element("section", element("h3", "Against the label"), element("table", element("tbody", *rows), class_="plain"))


def _boxes(title: str, entries: Sequence[NotedBox], count: int) -> Markup | None:
    """Table of boxes or of dropped components."""
    if not entries:
        return None
    dropped = bool(entries[0].why)
    heads = ["", "from", "to", *(("volume", "why") if dropped else ("remarks",))]
    rows = []
    for n, entry in enumerate(entries[:MAX_ROWS], 1):
        ends = [", ".join(map(str, end)) for end in (entry.start, entry.stop)]
        if dropped:
            rest = [volume_text(entry.volume_mm3 and entry.volume_mm3 / 1000), entry.why]
        else:
            rest = [", ".join(word for word, holds in (("clipped", entry.clipped), ("one of several tiles", entry.tile)) if holds) or DASH]
        rows.append(element("tr", element("th", n, scope="row"), *(element("td", cell) for cell in ends + rest)))
    head = element("thead", element("tr", *(element("th", text, scope="col") for text in heads)))
    more = [element("p", sentence, class_="hint") for sentence in _more(count)]
    table = element("table", head, element("tbody", *rows), class_="plain")
    body = join(element("div", table, class_="scroll", tabindex=0, role="region", aria_label=f"{title}, in voxels of the file"), *more)
    return _details(f"{title} ({count})", body)


def _details(title: str, body: Markup) -> Markup:
    return element("details", element("summary", title), body)
