from __future__ import annotations

import json
import os
import shutil

import pytest

from stseg3d.report.gather import DONE, EMPTY, FAILED, gather_cases
from tests.report.made_up import journal, stamp, write_case, write_labels_folder
from tests.systems import on_posix


def by_name(out, **folders):
    return {record.name: record for record in gather_cases(out, **folders)}


def test_a_folder_without_a_journal_is_read_from_the_json_files(tmp_path):
    out = tmp_path / "out"
    image = write_case(out, "a")
    write_case(out, "b", empty=True)
    (out / "outcomes.jsonl").unlink()
    records = by_name(out)
    a = records["a"]
    assert [records[name].state for name in "ab"] == [DONE, EMPTY]
    assert (a.image, a.input, a.labels, a.rough) == (None, str(image), out / "a_seg.nii.gz", out / "a_rough.nii.gz")
    assert (a.seconds, a.peak_memory_bytes, a.attempts) == (1.0, 600 * 2**20, 1)
    assert list(a.known.stage_seconds) == ["open", "rough", "fine", "write"]
    assert (a.known.box_count, a.known.dropped_count, a.known.volume_ml, a.remarks) == (2, 1, {"1": 12.5}, [])
    assert records["b"].known.warnings == ("nothing found by the rough stage",)


def test_failures_and_attempts_come_from_the_journal(tmp_path):
    out = tmp_path / "out"
    write_case(out, "a")
    journal(
        out,
        {"case": "a", "state": "started", "attempt": 1},
        {"case": "a", "state": "failed", "attempt": 1, "reason": "the disk was full", "seconds": 3},
        {"case": "a", "state": "started", "attempt": 2},
        {"case": "a", "state": "done", "attempt": 2, "seconds": 2.5, "peak_memory_bytes": 7, "output": stamp("a_seg.nii.gz")},
        {"case": "a", "state": "skipped", "attempt": 2, "seconds": 2.5, "peak_memory_bytes": 7, "reason": "done before"},
        {"case": "broken", "state": "failed", "reason": "it ends early", "input": stamp("in/broken.nii.gz")},
        {"case": "begun", "state": "started", "attempt": 1, "input": stamp("in/begun.nii.gz")},
        "not json\n",
        '["no outcome"]\n',
        '{"case": "torn", "state": "fai',
    )
    records = by_name(out)
    assert {name: record.state for name, record in records.items()} == {"a": DONE, "broken": FAILED, "begun": FAILED}
    assert (records["a"].attempts, records["a"].seconds, records["a"].peak_memory_bytes) == (2, 2.5, 7)
    assert (records["broken"].reason, records["broken"].input) == ("it ends early", "in/broken.nii.gz")
    assert "nobody saw its end" in records["begun"].reason


def test_a_case_that_failed_later_is_failed_and_shows_what_there_was(tmp_path):
    write_case(tmp_path / "out", "a")
    journal(tmp_path / "out", {"case": "a", "state": "done"}, {"case": "a", "state": "failed", "reason": "out of memory"})
    (record,) = gather_cases(tmp_path / "out")
    assert (record.state, record.reason) == (FAILED, "out of memory")
    assert record.labels is not None
    assert "of an earlier one" in record.remarks[0]


def test_done_by_the_journal_but_gone(tmp_path):
    journal(tmp_path / "out", {"case": "a", "state": "done", "input": stamp("x.nii.gz")})
    (record,) = gather_cases(tmp_path / "out")
    assert (record.state, record.reason) == (FAILED, "it was done, but <case>_seg.json is gone")


def test_broken_notes_are_a_failed_case(tmp_path):
    out = tmp_path / "out"
    write_case(out, "good")
    (out / "half_seg.json").write_text('{"case": ')
    (out / "list_seg.json").write_text("[]")
    (out / ".12.new_seg.json").write_text("{}")  # being written
    records = by_name(out)
    assert {name: record.state for name, record in records.items()} == {"good": DONE, "half": FAILED, "list": FAILED}
    assert "file must be JSON" in records["half"].reason
    assert "JSON object, got list" in records["list"].reason


@on_posix
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_notes_and_journals_that_are_no_files_are_not_opened(kind, tmp_path, caplog):
    make = {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda path: path.symlink_to("/dev/zero")}[kind]
    write_case(tmp_path / "out", "good")
    write_case(tmp_path / "out" / "below", "a").rename(tmp_path / "image.nii.gz")
    for name in ("out/a_seg.json", "out/below/outcomes.jsonl"):
        (tmp_path / name).unlink(missing_ok=True)
        make(tmp_path / name)
    records = by_name(tmp_path / "out")
    assert records["good"].state == DONE
    assert f"a_seg.json: file must be a regular file, got a {kind}" in " ".join(r.reason for r in gather_cases(tmp_path / "out"))
    assert f"outcomes.jsonl: file must be a regular file, got a {kind}" in caplog.text


@on_posix
def test_files_outside_of_the_folder_are_left_out(tmp_path):
    out = tmp_path / "out"
    image = write_case(out, "a")
    write_case(out, "b", input=str(image))  # not what the journal says
    write_case(tmp_path / "other", "a")
    (out / "a_seg.nii.gz").unlink()
    (out / "a_seg.nii.gz").symlink_to(tmp_path / "other" / "a_seg.nii.gz")
    records = by_name(out)
    assert (records["a"].labels, records["a"].image) == (None, image)
    assert records["a"].remarks == ["a_seg.nii.gz is a link to another folder: nothing can be drawn"]
    assert records["b"].image == tmp_path / "images" / "b.nii.gz"


def test_images_that_moved_are_found_elsewhere_or_missing(tmp_path):
    out = tmp_path / "out"
    write_case(out, "a")
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    assert by_name(out)["a"].image is None
    assert by_name(out, images=tmp_path / "elsewhere")["a"].image == tmp_path / "elsewhere" / "a.nii.gz"


def test_a_folder_that_moved_keeps_its_labels_and_missing_ones_are_told(tmp_path):
    out = tmp_path / "out"
    for name in "ab":
        write_case(out, name)
    out.rename(tmp_path / "moved")
    (tmp_path / "moved" / "b_seg.nii.gz").unlink()
    (tmp_path / "moved" / "b_rough.nii.gz").unlink()
    records = by_name(tmp_path / "moved")
    assert records["a"].labels == tmp_path / "moved" / "a_seg.nii.gz"
    assert (records["b"].labels, records["b"].rough) == (None, None)
    assert [r.split(":")[0] for r in records["b"].remarks] == ["b_seg.nii.gz is missing", "b_rough.nii.gz is missing"]


def test_labels_of_a_folder_or_a_data_set(tmp_path):
    for name in "ab":
        write_case(tmp_path / "out", name)
    labels = write_labels_folder(tmp_path / "labels", ["a"])
    listed = {"training": [{"image": "images/a.nii.gz", "label": "labels/a.nii.gz"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    for source in (labels, tmp_path / "dataset.json"):
        records = by_name(tmp_path / "out", labels=source)
        assert records["a"].truth == labels / "a.nii.gz"
        assert records["b"].truth is None
        assert "not scored" in records["b"].remarks[0]


def test_cases_of_folders_in_the_folder(tmp_path):
    for place in ("x", "y"):
        write_case(tmp_path / "out" / place, "a", images=tmp_path / "images" / place)
    journal(tmp_path / "out", {"case": "x/a", "state": "failed", "reason": "no"}, {"case": "other", "state": "done"})
    journal(tmp_path / "out" / "y", {"case": "b", "state": "failed", "reason": "no"})
    records = gather_cases(tmp_path / "out")
    assert [(r.name, r.state) for r in records] == [("other", FAILED), ("a", DONE), ("a", DONE), ("b", FAILED)]
    assert [r.remarks for r in records[2:]] == [["in the folder y"]] * 2


def test_no_results(tmp_path):
    with pytest.raises(FileNotFoundError, match="must exist, got none"):
        gather_cases(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="must hold results"):
        gather_cases(tmp_path)


def test_ground_truth_of_a_data_set_has_the_values_that_it_names(tmp_path):
    out = tmp_path / "out"
    image = write_case(out, "a")
    path = tmp_path / "dataset.json"
    entry = {"image": str(image), "label": str(out / "a_seg.nii.gz")}
    path.write_text(json.dumps({"labels": {"background": 0, "object": 1, "ignore": 2}, "training": [entry]}))
    named = by_name(out, labels=path)["a"]
    assert (named.truth, named.label_values.ignore) == (out / "a_seg.nii.gz", 2)
    assert by_name(out)["a"].label_values.ignore is None
