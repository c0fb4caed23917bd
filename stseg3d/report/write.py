"""One HTML page for a folder of results, which opens from disk and needs no network."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from stseg3d import __version__
from stseg3d.machine.files import atomic_write
from stseg3d.report.case_page import case_page
from stseg3d.report.gather import CaseRecord, gather_cases
from stseg3d.report.look import Look, look_at
from stseg3d.report.markup import Markup, data_block, element
from stseg3d.report.overview import joined, overview
from stseg3d.report.viewer import niivue

VOLUMES = ("embed", "link", "none")
# Limits of the viewer's copies, which are smaller with many cases. tests/benchmarks/bench_report.py opens a page of 100 cases.
MAX_CASE_BYTES, MAX_PAGE_BYTES, MIN_CASE_BYTES = 2_000_000, 50_000_000, 150_000


def write_report(
    out: Path,
    path: Path | None = None,
    *,
    images: Path | None = None,
    labels: Path | None = None,
    volumes: str = "embed",
    progress: Callable[[Sequence[CaseRecord]], Iterable[CaseRecord]] | None = None,
) -> tuple[Path, list[Look]]:
    """Write the report of a folder.

    Args:
        out: Folder that ``stseg3d segment`` wrote.
        path: The page; by default ``report.html`` in the folder.
        images: Folder of the images, if they were moved.
        labels: Folder of ground truth, or a ``dataset.json``, to score the cases.
        volumes: Volumes of the viewer: ``"embed"`` in the page, ``"link"`` in files beside it (``<page>_volumes``), or ``"none"``.
        progress: Wraps the cases to show progress, as ``tqdm`` does.

    Returns:
        Path of the page, and the content of each case.

    Raises:
        FileNotFoundError: If a folder does not exist or holds no results.
        ValueError: If ``volumes`` is another word.
        OSError: If it cannot be written; nothing is left behind then.
    """
    if volumes not in VOLUMES:
        msg = f"volumes must be one of {VOLUMES}, got {volumes!r}"
        raise ValueError(msg)
    path = path or out / "report.html"
    records = gather_cases(out, images=images, labels=labels)
    embedded = max(min(MAX_CASE_BYTES, MAX_PAGE_BYTES / len(records)), MIN_CASE_BYTES)
    room = {"none": 0.0, "link": float(MAX_CASE_BYTES), "embed": embedded}[volumes]
    looks = [look_at(record, room) for record in (progress(records) if progress else records)]
    with ExitStack() as files:
        page = files.enter_context(atomic_write(path))
        if volumes == "link":
            _write_volumes(path, looks)
        page.write_text(
            html(out, looks, linked=f"{path.stem}_volumes" if volumes == "link" else ""),
            encoding="utf-8",
            errors="backslashreplace",
            newline="",
        )
    return path, looks


def _write_volumes(path: Path, looks: Sequence[Look]) -> None:
    """Write volumes as scripts, the only files that a page from disk may load; a link in their folder's place is replaced."""
    folder = path.with_name(f"{path.stem}_volumes")
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(exist_ok=True)
    for old in folder.glob("[0-9]*.js"):  # from an earlier report; other files stay
        old.unlink()
    for n, look in enumerate(looks):
        if look.viewer:
            (folder / f"{n}.js").write_text(f"stseg3dVolumes({n}, {look.viewer});\n", encoding="utf-8", newline="")


def html(out: Path, looks: Sequence[Look], *, linked: str = "") -> str:
    """HTML of the page.

    Args:
        out: Folder of results.
        looks: Content of each case.
        linked: Folder beside the page that holds the volumes; by default they are in the page.
    """
    style, script = (_part(name) for name in ("report.css", "report.js"))
    with_viewer = any(look.viewer for look in looks)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script, linked=bool(linked))),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{out.resolve().name} – segmentation report"),  # noqa: RUF001
        element("style", Markup(style)),
    )
    volumes = [data_block(look.viewer, f"volumes-{n}", "application/json") for n, look in enumerate(looks) if look.viewer and not linked]
    viewer = [data_block(niivue(), "niivue", "application/octet-stream")] if with_viewer else []
    body = element(
        "body",
        element("a", "Skip to the cases", href="#cases", class_="skip"),
        _top(out, looks),
        element("main", overview(looks), element("section", id="case", hidden=True, aria_live="off")),
        element("footer", f"Made by stseg3d {__version__}", ". For research only: no result may guide the care of a patient."),
        element("noscript", element("p", "Cases open, and the table sorts, where scripts may run.", class_="note warning")),
        *(case_page(n, look, viewer=bool(look.viewer)) for n, look in enumerate(looks)),
        element("script", Markup(script), data_volumes=linked),
        # Last, so that the page appears before they are loaded.
        *viewer,
        *volumes,
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _part(name: str) -> str:
    return resources.files("stseg3d.report").joinpath("page", name).read_text(encoding="utf-8")


def _top(out: Path, looks: Sequence[Look]) -> Markup:
    bundles = sorted({str(look.record.known.bundle.get("name", "")) for look in looks} - {""})
    now = datetime.now(UTC)
    when = element("time", f"{now:%Y-%m-%d %H:%M} UTC", datetime=now.isoformat(timespec="minutes"))
    about = joined([element("span", out, class_="path"), *bundles, when])
    return element("header", element("h1", "Segmentation report"), element("p", about), class_="top")


def _policy(style: str, script: str, *, linked: bool) -> str:
    """Content security policy: only this page's own style, script and data; no network."""
    hashes = {name: b64encode(hashlib.sha256(text.encode()).digest()).decode() for name, text in (("style", style), ("script", script))}
    rules = {
        "default-src": "'none'",
        "script-src": f"'sha256-{hashes['script']}' blob:" + (" file: 'self'" if linked else ""),
        "style-src": f"'sha256-{hashes['style']}'",
        "img-src": "data: blob:",
        "connect-src": "data: blob:",  # for the viewer's fonts
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())
