"""Findings: what is wrong or doubtful in a user's data, all in one report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stseg3d.machine.tables import Table
from stseg3d.volumes.dicom.headers import abbreviated

LEVELS = ("error", "warning")
WIDTH = 110  # of the report


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Args:
        level: ``"error"``: nothing can be planned until it is mended. ``"warning"``: it is told, and the plan goes on.
        case: Id of the case, or the file; empty if it is about the whole data set.
        rule: What must hold, the same text for all findings of one kind.
        value: What was found instead.
    """

    level: Literal["error", "warning"]
    case: str
    rule: str
    value: str


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether one of them is an error."""
    return any(finding.level == "error" for finding in findings)


def findings_table(findings: Iterable[Finding]) -> Table:
    """Table of all findings, errors first: one row a rule, with the first three cases and the number of all."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: LEVELS.index(f.level)):
        kinds.setdefault((finding.level, finding.rule), []).append(finding)
    rows = [[level, rule, *_cells(found)] for (level, rule), found in kinds.items()]
    return Table(["level", "rule", "got", "case", "cases"], rows, words=4, title="Findings")


def findings_text(findings: Iterable[Finding]) -> str:
    """Report for a terminal: how many errors and warnings there are, and the table; empty without findings."""
    found = list(findings)
    if not found:
        return ""
    counts = [(sum(f.level == level for f in found), level) for level in LEVELS]
    head = ", ".join(f"{n} {level}{'s' * (n > 1)}" for n, level in counts if n)
    return f"{head}\n{findings_table(found).text(WIDTH)}\n"


def _cells(found: list[Finding]) -> list[str]:
    cases = list(dict.fromkeys(f.case for f in found if f.case))
    return [abbreviated(dict.fromkeys(f.value for f in found)), abbreviated(cases) or "all", str(len(cases) or 1)]
