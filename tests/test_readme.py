"""The code blocks of the pages run, and their links lead somewhere.

An HTML comment before a block says how: ``<!-- readme: run -->`` runs it here, with ``slow`` only under ``pytest -m slow``, with ``data``
only where ``STSEG3D_DATA`` (by default ``../shared/data``) holds the real scans. The two install commands are checked for their form, as
``.ci/run`` runs them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from stseg3d import cli
from stseg3d.bundle import WEIGHTS
from stseg3d.bundle_folders import embedded_folder
from stseg3d.synthesis.phantoms import write_dataset
from stseg3d.volumes import load_dataset
from tests.systems import make_link

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("STSEG3D_DATA", ROOT.parent / "shared" / "data"))
PAGES = (
    *("README.md", "data/README.md", "bundles/README.md", "tests/benchmarks/README.md", "stseg3d/README.md"),
    *(f"stseg3d/{room}/README.md" for room in ("inference", "batch", "report", "evaluate", "training", "selection", "planning", "compare")),
)
DOCS = (*PAGES, ".github/CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("bundles/*/docs/README.md"))))
MAX_LINES, MAX_LENGTH = 150, 110
BLOCK = re.compile(r"^(?:<!-- readme: (?P<how>[a-z ]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
INSTALL = ["pip install torch==2.13.0 -e . && stseg3d demo\n", 'pip install torch==2.13.0 -e ".[test]" && pytest\n']


@dataclass(frozen=True)
class Block:
    file: str
    line: int
    how: frozenset[str]
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its lines, those that end on a backslash joined with the next."""
        return self.text.replace("\\\n", "").splitlines()


def blocks(file: str) -> list[Block]:
    text = (ROOT / file).read_text(encoding="utf-8")
    matches = BLOCK.finditer(text)
    return [
        Block(file, text.count("\n", 0, m.start("text")), frozenset((m["how"] or "").split()), m["language"], m["text"]) for m in matches
    ]


def prose(file: str) -> str:
    """A page without its code blocks."""
    return BLOCK.sub("", (ROOT / file).read_text(encoding="utf-8"))


def anchors(file: Path) -> set[str]:
    """What links to headings of a page end on, as GitHub makes them: repeated ones are numbered."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.*)$", BLOCK.sub("", file.read_text(encoding="utf-8")), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)


BLOCKS = [block for page in PAGES for block in blocks(page)]
MARKS = {"slow": pytest.mark.slow}


def test_the_readme_opens_with_the_two_commands() -> None:
    assert [block.text for block in BLOCKS[:2]] == INSTALL
    assert all(block.language == "bash" for block in BLOCKS[:2])


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("page", DOCS)
def test_lines_are_short(page: str) -> None:
    """Those of tables and code too in the README, on other pages where they can be."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines() if page == "README.md" else prose(page).splitlines()
    assert [line for line in lines if len(line) > MAX_LENGTH and (page == "README.md" or not line.startswith("|"))] == []


def test_ci_takes_the_test_command_from_the_readme() -> None:
    pattern = re.search(r"grep -m 1 -E '(.*)' README\.md", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert pattern
    found = re.search(pattern[1], (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    assert found[0] + "\n" == INSTALL[1]


@pytest.mark.parametrize("page", DOCS)
def test_links_lead_somewhere(page: str) -> None:
    """To files that exist and to headings that they have; on the web nobody looks."""
    links = [inline or reference for inline, reference in LINK.findall(prose(page))]
    for link in (link for link in links if "://" not in link):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    links = {path for path, _ in LINK.findall(prose("README.md"))}
    assert {page for page in PAGES if page != "README.md"} <= links


def test_numbered_headings_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b`, c-d\n## Twice\n```bash\n# no heading\n```\n## Twice\n")
    assert anchors(page) == {"a-b-c-d", "twice", "twice-1"}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the READMEs name: a CT phantom as scan, scans, images, labels and data set."""
    folder = tmp_path_factory.mktemp("readme")
    dataset = load_dataset(write_dataset(folder, training=2, validation=1, seed=4, shape=(64, 64, 56)))
    for case in dataset.training:
        own = [("my_data/images", case.image), ("my_data/labels", case.label)]
        for name, file in [("scans", case.image), ("images", case.image), ("labels", case.label), *own]:
            (folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / name)
    shutil.copy(dataset.training[0].image, folder / "scan.nii.gz")
    return folder


@pytest.fixture
def workplace(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the phantoms, with the bundles, as working directory; ``--threads`` of a block is forgotten after it."""
    threads = torch.get_num_threads()
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    make_link(tmp_path / "bundles", embedded_folder())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STSEG3D_DATA", str(DATA))
    yield tmp_path
    torch.set_num_threads(threads)


def run_line(line: str) -> None:
    words = shlex.split(os.path.expandvars(line).replace("30min", "20s"))  # nobody has half an hour
    if words[:2] == ["stseg3d", "compare"]:
        # An aorta's boxes of 5 cm are of a few voxels here, whose edges are ten times those of a scan: tens of thousands of boxes.
        words += ["--set", "policy#max_spacing_mm=16"]
    if words[0] == "stseg3d":
        assert cli.main(words[1:]) == 0, line
        return
    if words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "torchrun":
        words[:1] = [sys.executable, "-m", "torch.distributed.run"]
    subprocess.run(words, check=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})


@pytest.mark.parametrize(
    "block", [pytest.param(b, marks=[MARKS[h] for h in b.how if h in MARKS], id=str(b)) for b in BLOCKS if "run" in b.how]
)
def test_block_runs(block: Block, workplace: Path) -> None:
    if "data" in block.how and not DATA.is_dir():
        pytest.skip(f"needs the real scans, and there is no folder {DATA}")
    for name in re.findall(r"\w+_segmentation", block.text):
        if name != "my_segmentation" and not (embedded_folder() / name / WEIGHTS).is_file():
            pytest.fail(f"{name} has no weights")
    if block.language == "python":
        space: dict[str, object] = {}
        exec(compile(block.text, str(block), "exec"), space)
        if "labels" in space:
            assert np.asarray(space["labels"]).dtype == np.uint8
        return
    for line in block.commands:
        run_line(line)


@pytest.mark.parametrize("block", [pytest.param(b, id=str(b)) for b in BLOCKS if b.language == "json"])
def test_json_is_json(block: Block) -> None:
    assert json.loads(block.text)


def test_the_worked_example_is_a_data_set_we_read(workplace: Path) -> None:
    example = next(block for block in blocks("data/README.md") if block.language == "json")
    for name in re.findall(r'"((?:images|labels)/[^"]+)"', example.text):
        (workplace / name).parent.mkdir(exist_ok=True)
        shutil.copy(workplace / "scan.nii.gz", workplace / name)
    (workplace / "dataset.json").write_text(example.text)
    dataset = load_dataset("dataset.json")
    assert [case.id for case in dataset.training + dataset.validation] == ["a", "b", "c"]
    assert dict(dataset.labels.names) == {0: "background", 1: "L1", 2: "L2"}
