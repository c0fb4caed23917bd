"""Findings: what is wrong or doubtful in a user's data, all in one report."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stseg3d.machine.tables import Table, abbreviated

LEVELS = ("error", "warning")
WIDTH, INDENT = 110, 4  # characters, of the report
LISTED = 3  # different values of a rule


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
    rows = [[level, rule, *_cells(found)] for (level, rule), found in _by_rule(findings).items()]
    return Table(["level", "rule", "got", "case", "cases"], rows, words=4, title="Findings")


def findings_text(findings: Iterable[Finding]) -> str:
    """Report for a terminal: how many errors and warnings there are, and below each rule the first cases; empty without findings."""
    found = list(findings)
    if not found:
        return ""
    counts = [(sum(f.level == level for f in found), level) for level in LEVELS]
    lines = [", ".join(f"{n} {level}{'s' * (n > 1)}" for n, level in counts if n)]
    for (level, rule), of_rule in _by_rule(found).items():
        by_value: dict[str, list[str]] = {}
        for finding in of_rule:
            by_value.setdefault(finding.value, []).append(finding.case)
        lines += _filled(f"{level}: {rule}", 0)
        for value, cases in list(by_value.items())[:LISTED]:
            where = abbreviated(dict.fromkeys(filter(None, cases)))
            lines += _filled(f"{where}: {value}" if where else f"got {value}", INDENT)
        if more := sum(map(len, by_value.values())) - sum(map(len, list(by_value.values())[:LISTED])):
            lines.append(f"{' ' * INDENT}and {more} more")
    return "\n".join(lines) + "\n"


def _by_rule(findings: Iterable[Finding]) -> dict[tuple[str, str], list[Finding]]:
    """Findings by level and rule, errors first."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: LEVELS.index(f.level)):
        kinds.setdefault((finding.level, finding.rule), []).append(finding)
    return kinds


def _filled(text: str, indent: int) -> list[str]:
    """Lines of at most :data:`WIDTH` characters, the later ones indented further; a path is never broken."""
    first, later = " " * indent, " " * (indent + INDENT)
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False)


def _cells(found: list[Finding]) -> list[str]:
    cases = list(dict.fromkeys(f.case for f in found if f.case))
    return [abbreviated(dict.fromkeys(f.value for f in found)), abbreviated(cases) or "all", str(len(cases) or 1)]
