from __future__ import annotations

import hashlib
import json
import os
import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser

import numpy as np
import pytest

from stseg3d import cli
from stseg3d.report import write_report
from stseg3d.volumes import write_labels
from tests.report.made_up import GRID, journal, stamp, write_case, write_labels_folder
from tests.systems import on_posix

EVIL = "<img src=x onerror=alert(1)>&\"'"


class Page(HTMLParser):
    """Elements of a page: tag, attributes, text in it; scripts and templates as browsers take them."""

    def __init__(self, text):
        super().__init__()
        self.found, self._open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))
        self._open.append(self.found[-1])

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self._open:
            self._open[-1][2].append(data)

    def all(self, tag, **attrs):
        return [(a, "".join(text)) for name, a, text in self.found if name == tag and attrs.items() <= a.items()]


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Pictures of a quarter of their height: none is looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stseg3d.report.look.PANEL_HEIGHT", 130)
        yield


def page_of(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("report")
    out = base / "out"
    write_case(out, "good")
    write_case(out, "flat", flat=True)
    write_case(out, "nothing", empty=True)
    write_case(out, "moved", warnings=[EVIL], bundle={"name": EVIL}, boxes_from=EVIL).unlink()
    journal(out, {"case": f"bad{EVIL}", "state": "failed", "reason": f"it ends early {EVIL}", "input": stamp("in/bad.nii.gz")})
    write_labels_folder(base / "labels", ["good"])
    return base


@pytest.fixture(scope="module")
def written(folder):
    path, looks = write_report(folder / "out", folder / "page.html", labels=folder / "labels")
    return page_of(path), {look.record.name: look for look in looks}


def test_every_case_has_a_row_that_leads_to_its_page(written):
    page, looks = written
    links = [a["href"].removeprefix("#case-") for a, _ in page.all("a") if a["href"].startswith("#case-")]
    templates = {a["id"].removeprefix("template-"): a["data-name"] for a, _ in page.all("template")}
    assert links == list(templates) == [str(n) for n in range(5)]
    assert set(templates.values()) == set(looks)
    badges = [text for _, text in page.all("span") if text in ("done", "failed", "nothing found")]
    assert {text: badges.count(text) for text in badges} == {"done": 9 + 1, "failed": 3 + 1, "nothing found": 3 + 1}


def test_pictures_have_texts_sizes_and_pixels(written):
    page, looks = written
    images = [a for a, _ in page.all("img")]
    assert len(images) == 5 + 5 + 1 + 3  # of good and nothing, of the flat one, and thumbnails
    for image in images:
        assert b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))[:3] == b"\xff\xd8\xff"
        assert int(image["width"]) > 0
    assert {a["alt"] for a in images} >= {"good, axial, with segmentation, rough mask, truth, boxes", ""}
    assert [shot.title for shot in looks["good"].shots] == ["axial", "coronal", "sagittal", "from the front", "from the left"]
    assert looks["nothing"].drawn == ["rough"]


def test_scores_against_labels(written):
    _, looks = written
    assert 0.8 < looks["good"].scores["dice"] < 1
    assert not looks["flat"].scores
    assert "no label of this name" in looks["flat"].record.remarks[0]


def test_what_cannot_be_shown_is_said(written):
    page, looks = written
    text = " ".join(text for _, text in page.all("p"))
    assert "is not there: no pictures (--images says where images are)" in text
    assert f"it ends early {EVIL}" in text
    assert not looks["moved"].shots


def test_nothing_that_a_case_says_becomes_markup(written):
    page, _ = written
    assert all("onerror" not in a for _, a, _ in page.found)
    assert all(a["src"].startswith("data:image/jpeg;base64,") for a, _ in page.all("img"))
    assert any(text == EVIL for _, text in page.all("p"))
    assert not [a for _, a, _ in page.found if "style" in a or any(key.startswith("on") for key in a)]


def test_the_policy_allows_this_page_and_no_network(written):
    page, _ = written
    (meta,) = [a for a, _ in page.all("meta") if "http-equiv" in a]
    rules = dict(rule.split(" ", 1) for rule in meta["content"].split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in meta["content"]
    assert "http" not in meta["content"]
    ((_, style),) = page.all("style")
    (script,) = [text for a, text in page.all("script") if "type" not in a]
    for text, rule in ((style, "style-src"), (script, "script-src")):
        assert f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in rules[rule]
    assert not [a for _, a, _ in page.found if str(a.get("src", "")).startswith("http") or "integrity" in a or a.get("rel")]


def test_volumes_are_in_the_page_beside_it_or_nowhere(folder, tmp_path):
    sizes = {}
    (tmp_path / "link_volumes").mkdir()
    (tmp_path / "link_volumes" / "77.js").touch()  # of an earlier report
    for volumes in ("embed", "link", "none"):
        path, _ = write_report(folder / "out", tmp_path / f"{volumes}.html", volumes=volumes)
        blocks = {a["id"]: text for a, text in page_of(path).all("script") if a.get("type")}
        sizes[volumes] = len(path.read_bytes())
        numbers = [key for key in blocks if key.startswith("volumes-")]
        assert len(numbers) == (3 if volumes == "embed" else 0)
        assert ("niivue" in blocks) == (volumes != "none")
        assert all({"image", "labels", "window"} <= json.loads(blocks[key]).keys() for key in numbers)
    files = sorted((tmp_path / "link_volumes").iterdir())
    assert len(files) == 3
    assert all(re.match(r"stseg3dVolumes\(\d, \{", file.read_text()) for file in files)
    assert sizes["none"] < sizes["link"] < sizes["embed"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["embed.html", "link.html", "link_volumes", "none.html"]


def test_one_case_that_cannot_be_drawn_or_scored_never_stops_the_others(tmp_path):
    write_case(tmp_path / "out", "good")
    write_labels(np.ones((4, 4, 4), np.uint8), write_case(tmp_path / "out", "other_shape"), GRID.resized((4, 4, 4)))
    write_case(tmp_path / "out", "broken").write_bytes(b"no gzip")
    write_case(tmp_path / "out", "boxless", boxes=[{"start": [0, 0, 0]}])
    write_case(tmp_path / "out", "upside_down", boxes=[{"start": [9, 9, 9], "stop": [0, 0, 0]}])
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in ("good", "other_shape"):
        write_labels(np.ones((4, 4, 4), np.uint8), labels / f"{name}.nii.gz", GRID.resized((4, 4, 4)))
    _, looks = write_report(tmp_path / "out", labels=labels)
    remarks = {look.record.name: " ".join(look.record.remarks) for look in looks}
    assert [look.record.name for look in looks if look.shots] == ["good"]
    assert "must have the shape of its labels" in remarks["other_shape"]
    assert "not drawn" in remarks["broken"]
    assert "not drawn: stop must be as long as start and not before it" in remarks["upside_down"]
    assert "boxless_seg.json#boxes#0 must have the entry 'stop'" in looks[0].record.reason
    assert "must be on the same grid" in remarks["good"]


def test_a_case_whose_name_is_no_text_has_its_row(tmp_path):
    journal(tmp_path / "out", {"case": "b\udcff", "state": "failed", "reason": "case must have a name without '\udcff'"})
    page, _ = write_report(tmp_path / "out")
    assert "b\\udcff" in page.read_text(encoding="utf-8")


@on_posix
def test_a_pipe_in_place_of_an_image_is_not_opened(tmp_path):
    image = write_case(tmp_path / "out", "a")
    image.unlink()
    os.mkfifo(image)
    _, (look,) = write_report(tmp_path / "out")
    assert look.record.remarks == [f"not drawn: {image}: file must exist, got a pipe or a device"]


def test_only_images_of_the_run_or_of_the_given_folder_are_shown(tmp_path):
    out = tmp_path / "out"
    image = write_case(out, "a", images=tmp_path / "private")
    (out / "outcomes.jsonl").unlink()
    _, (look,) = write_report(out, volumes="none")
    assert not look.shots
    assert look.record.remarks == [f"image {image} is not one that outcomes.jsonl names: no pictures (--images says where images are)"]
    assert write_report(out, images=image.parent, volumes="none")[1][0].shots


def test_the_page_of_very_many_boxes_shows_the_first_and_says_how_many_there_are(tmp_path):
    boxes = [{"start": [n % 30, 4, 4], "stop": [n % 30 + 9, 20, 24]} for n in range(5000)]
    write_case(tmp_path / "out", "a", boxes=boxes, warnings=[f"warning {n}" for n in range(3000)])
    path, (look,) = write_report(tmp_path / "out", volumes="none")
    assert look.record.remarks == ["only the first 1000 of 5000 boxes are drawn"]
    page = page_of(path)
    assert "Boxes (5000)" in {text for _, text in page.all("summary")}
    assert "… and 4950 more, in seg.json" in {text for _, text in page.all("p")}
    assert len(path.read_bytes()) < 1_000_000


@on_posix
def test_a_link_in_place_of_the_folder_of_volumes_is_replaced(tmp_path):
    write_case(tmp_path / "out", "a")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0.js").write_text("somebody's")
    (tmp_path / "page_volumes").symlink_to(elsewhere)
    write_report(tmp_path / "out", tmp_path / "page.html", volumes="link")
    assert [(path.name, path.read_text()) for path in elsewhere.iterdir()] == [("0.js", "somebody's")]
    assert not (tmp_path / "page_volumes").is_symlink()
    assert [path.name for path in (tmp_path / "page_volumes").iterdir()] == ["0.js"]


def test_probabilities_and_a_label_of_several_classes_are_drawn(tmp_path):
    from stseg3d.volumes import write_probabilities

    image = write_case(tmp_path / "out", "soft", kind="probabilities")
    probabilities = np.zeros((2, *GRID.shape), np.float32)
    probabilities[0, 5:15, 5:15, 5:15], probabilities[1, 20:30, 5:15, 5:15] = 0.9, 0.8
    write_probabilities(probabilities, tmp_path / "out" / "soft_seg.nii.gz", GRID)
    (tmp_path / "labels").mkdir()
    write_labels(np.ones(GRID.shape, np.uint8), tmp_path / "labels" / "soft.nii.gz", GRID)
    _, (look,) = write_report(tmp_path / "out", labels=tmp_path / "labels")
    assert image.is_file()
    assert json.loads(look.viewer)["labelCount"] == 2
    assert look.record.remarks == ["not scored: the output holds probabilities, not labels"]


def test_the_command(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    arguments = ["report", str(folder / "out"), "--labels", str(folder / "labels"), "--images", str(folder / "images"), "-o", str(page)]
    assert cli.main([*arguments, "--volumes", "none"]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert page.is_file()
    assert cli.main(["report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: folder of results must exist, got none" in capsys.readouterr().err
    assert cli.main(["report", str(folder / "out"), "-o", str(tmp_path / "no" / "folder.html")]) == 2
    assert not (tmp_path / "no").exists()


def test_unknown_volumes(folder):
    with pytest.raises(ValueError, match="volumes must be one of"):
        write_report(folder / "out", volumes="cloud")
