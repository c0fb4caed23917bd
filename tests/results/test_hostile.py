"""Broken lines of a journal and broken notes: no case but theirs is lost, and nothing is raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.results.fuzzing import fuzz_journal, fuzz_notes


@pytest.mark.parametrize(("fuzz", "count"), [(fuzz_journal, 60), (fuzz_notes, 40)])
def test_some_mutations(fuzz: Callable[..., dict[str, int]], count: int, tmp_path: Path) -> None:
    tally = fuzz(count, 7, tmp_path)
    assert sum(tally.values()) == count
    assert min(tally["read"], tally["refused"]) > 1


@pytest.mark.slow
@pytest.mark.parametrize("fuzz", [fuzz_journal, fuzz_notes])
def test_thousands_of_mutations(fuzz: Callable[..., dict[str, int]], tmp_path: Path) -> None:
    assert sum(fuzz(3000, 0, tmp_path).values()) == 3000
