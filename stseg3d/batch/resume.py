"""Resuming: which cases are done, which are to be done, and which outputs must not be replaced."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from stseg3d.inference import Request
from stseg3d.machine.files import remove_temporary_files
from stseg3d.results.journal import FAILED, SKIPPED, WORKER_DIED, CaseOutcome
from stseg3d.results.notes import NOTES_SUFFIX
from stseg3d.results.stamps import is_unchanged, stamp, stamp_if_there
from stseg3d.volumes import Case, output_name, without_faults

MAX_ATTEMPTS = 4  # of a case whose process dies each time


def settled(case: Case, last: CaseOutcome | None, request: Request, *, overwrite: bool) -> CaseOutcome | None:
    """Outcome of a case that needs no work or must not be done; None if it is to be done.

    Args:
        case: The case.
        last: Last outcome of the case, if any.
        request: The request.
        overwrite: Whether an existing output may be replaced.

    Returns:
        ``skipped`` if the output exists unchanged, from the same image, bundle and options. ``failed`` if the case has a fault, its image
        is missing, or there is an output that ``last`` does not know or that was made from something else. Outputs of an interrupted run
        may be replaced. Also ``failed`` if nothing has changed since :data:`MAX_ATTEMPTS` attempts, the last of which killed its process.
    """
    try:
        without_faults([case])
        output = request.output_dir / output_name(case.id)
        stamp(case.image)
        why = _difference(case, last, request, output)
        if not why and last:
            return replace(last, state=SKIPPED, reason=f"done before, {last.ended_utc}")
        if last and not overwrite and _kills(case, last, request):
            why = f"the process died in attempt {last.attempt}, the last one; --overwrite tries again"
            return CaseOutcome(case.id, FAILED, reason=why, error=WORKER_DIED, input=stamp_if_there(case.image))
        if not output.exists() or overwrite or (last and last.was_interrupted):
            return None
    except (OSError, ValueError) as error:
        return CaseOutcome(case.id, FAILED, input=stamp_if_there(case.image)).failed(error)
    msg = f"output {output} is there already; --overwrite replaces it ({why})"
    return CaseOutcome(case.id, FAILED, input=stamp_if_there(case.image)).failed(FileExistsError(msg))


def _kills(case: Case, last: CaseOutcome, request: Request) -> bool:
    """Whether the case has killed its process often enough, and would be done as it was then."""
    then = last.input if last.may_have_killed and last.attempt >= MAX_ATTEMPTS and last.request == request.digest else None
    return then is not None and is_unchanged(case.image, then)


def _difference(case: Case, last: CaseOutcome | None, request: Request, output: Path) -> str:
    """Reason why the output is not what would be written now; empty if it is."""
    if last is None or not last.is_finished or last.input is None or last.output is None:
        return "no finished case of outcomes.jsonl"
    if last.request != request.digest:
        return "made with another bundle or other options"
    if not is_unchanged(case.image, last.input):
        return "made of another image"
    then = replace(last.output, path=str(output.absolute()))
    if not is_unchanged(output, then) or not output.with_name(f"{case.id}{NOTES_SUFFIX}").is_file():
        return "changed since it was made"
    return ""


def remove_leftovers(case: str, folder: Path) -> None:
    """Remove the temporary files of a case whose process was killed."""
    remove_temporary_files(folder, re.compile(rf"{re.escape(case)}_[a-z]+\.(nii\.gz|json)"))
