"""Folders of results with a broken line or broken notes, by the thousand: the other cases are always there, and nothing else is raised."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.report.gather import DONE, gather_cases
from stseg3d.report.look import look_at
from stseg3d.report.write import html
from stseg3d.results import CaseOutcome, OutcomeLog, write_summary
from stseg3d.results.journal import as_line
from stseg3d.results.stamps import FileStamp
from tests.report.made_up import write_case
from tests.volumes.mutations import TEXT

# Text that takes the place of a value, as JSON or nearly so.
VALUES = (
    *("null", "true", "[]", "{}", '["a"]', '{"a": 5}', '""', '"a"', '"\\ud800"', '"\\udc80"', '"\\u0000"', '"../../a"', '"/dev/zero"'),
    *(
        "NaN",
        "Infinity",
        "-1",
        "0",
        "0.5",
        "7",
        "2.5e3",
        "1e15",
        "1e16",
        "1e999",
        "-1e300",
        "9" * 400,
        "9" * 5000,
        str(2**63),
        str(2**63 - 1),
    ),
    *('"' + "a" * 5000 + '"', "[" * 100_000, '{"a":' * 40 + "1" + "}" * 40, "[[[[1]]]]", '"<script>"', '"\\n"', '"NUL"', "[0, 0, 0]"),
)
SOUND = CaseOutcome(
    "bad",
    "done",
    attempt=1,
    warnings=("small",),
    seconds=1.5,
    stages_s={"open": 0.5, "rough": 1.0},
    input=FileStamp("scans/bad.nii", 10, 7, "ab"),
    output=FileStamp("bad_seg.nii.gz", 5, 7, "ef"),
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values within a JSON value, itself included."""
    yield at
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*at, key))


def mutate(content: Any, rng: np.random.Generator) -> bytes:
    """JSON of a value with one or two others in it, or an entry less, or one more; or broken as any text is."""
    if rng.random() < 0.2:
        return bytes(TEXT[int(rng.integers(len(TEXT)))](json.dumps(content, indent=1).encode(), rng))
    marks: dict[str, str] = {}
    content = json.loads(json.dumps(content))
    for n in range(1 + int(rng.random() < 0.3)):
        *way, last = ("top", *list(places(content))[int(rng.integers(len(list(places(content)))))])
        parent: Any = {"top": content}
        for key in way:
            parent = parent[key]
        mark = f"mark {n}"
        marks[json.dumps(mark)] = VALUES[int(rng.integers(len(VALUES)))]
        if rng.random() < 0.1 and way:
            del parent[last]
        elif rng.random() < 0.1 and isinstance(parent, dict) and way:
            parent["x" * int(rng.integers(3000))] = mark
        else:
            parent[last] = mark
            content = parent[last] if not way else content
    text = json.dumps(content)
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text.encode()


def fuzz_journal(count: int, seed: int, folder: Path) -> Counter[str]:
    """Broken lines, each between two sound ones, and how many of them were taken for outcomes."""
    rng, tally = np.random.default_rng(seed), Counter[str]()
    log = OutcomeLog(folder)
    for _ in range(count):
        line = mutate({key: value for key, value in asdict(SOUND).items() if value}, rng)
        first, second = (as_line(CaseOutcome(f"{name} sound", "done", 1)) for name in ("first", "second"))
        log.path.write_bytes(first + line.replace(b"\n", b" ") + b"\n" + second)
        reader = OutcomeLog(folder)
        cases = [outcome.case for outcome in reader.latest()]
        assert {"first sound", "second sound"} <= set(cases), line
        reader.append(CaseOutcome("third sound", "started", 1))
        assert all(reader.last(f"{name} sound") for name in ("first", "second", "third")), line
        write_summary(reader)
        assert "first sound" in html(folder, [look_at(record) for record in gather_cases(folder)])
        tally["read" if len(cases) > 2 else "refused"] += 1
    return tally


def fuzz_notes(count: int, seed: int, folder: Path) -> Counter[str]:
    """Broken notes beside sound ones, and how many of them were read."""
    rng, tally = np.random.default_rng(seed), Counter[str]()
    for name in ("sound", "bad"):
        write_case(folder, name)
    notes = folder / "bad_seg.json"
    content = json.loads(notes.read_bytes())
    for _ in range(count):
        broken = mutate(content, rng)
        notes.write_bytes(broken)
        bad, sound = gather_cases(folder)
        assert (sound.name, sound.state) == ("sound", DONE)
        page = html(folder, [look_at(record) if record.notes is None else _unseen(record) for record in (bad, sound)])
        page.encode(errors="backslashreplace")
        assert page.count("<template") == 2, broken
        assert len(page) < 1_000_000, broken
        tally["read" if bad.notes else "refused"] += 1
    return tally


def _unseen(record: Any) -> Any:
    """Content of a case without pictures, which take a tenth of a second."""
    record.image = None
    return look_at(record)


def main() -> None:
    """``python -W error -m tests.results.fuzzing COUNT SEED``: tallies of that many mutations of lines and of notes."""
    import sys
    import tempfile

    count, seed = int(sys.argv[1]), int(sys.argv[2])
    for fuzz in (fuzz_journal, fuzz_notes):
        with tempfile.TemporaryDirectory() as folder:
            print(fuzz.__name__, dict(fuzz(count, seed, Path(folder))))


if __name__ == "__main__":
    main()
