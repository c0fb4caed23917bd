"""``stseg3d evaluate``: metrics of predictions against labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stseg3d.cli.arguments import PARTS, Command, ensure_table, length
from stseg3d.cli.terminal import BAD, BAD_INPUT, DONE, FAILED, fail, loading, progress, sentence

if TYPE_CHECKING:
    from stseg3d.evaluate import Pair, Row


def add_evaluate(commands: Any) -> Command:
    """The command ``evaluate`` and its arguments."""
    command = commands.add_parser("evaluate", help="overlap, distances in mm and objects of predictions against labels, with intervals")
    command.add_argument("prediction", type=Path, metavar="PRED", help="file or folder; <id>_seg.nii.gz goes with the label <id>.nii.gz")
    command.add_argument("label", type=Path, metavar="LABEL", help="file, folder or dataset.json")
    command.add_argument("-o", dest="output", type=Path, metavar="OUT", help="write every metric to a .csv or .json, too")
    command.add_argument(
        "--per-class", action="store_true", help="a row for each class and region, too, beside the foreground (label above 0)"
    )
    command.add_argument("--objects", choices=["labels", "components"], help="score objects, too: label values, or connected components")
    command.add_argument("--tolerance-mm", type=length, default=1.0, metavar="MM", help="surfaces this near agree, in nsd (default: 1)")
    command.add_argument("--boundary-mm", type=length, default=2.0, metavar="MM", help="width of boundary_iou_fixed (default: 2)")
    command.add_argument("--part", choices=PARTS, default="validation", help="of a dataset.json (default: validation)")
    return command, _evaluate


def _evaluate(args: argparse.Namespace) -> int:
    with loading():
        from stseg3d.evaluate import dump, pair_cases, summarise, table
        from stseg3d.machine.files import atomic_write_text

    ensure_table(args.output)
    pairs = pair_cases(args.prediction, args.label, part=args.part)
    settings = {name: getattr(args, name) for name in ("tolerance_mm", "boundary_mm", "objects")}
    rows, errors = _evaluate_pairs(args, pairs, settings)
    if not rows:
        return BAD if all(isinstance(error, BAD_INPUT) for error in errors.values()) else FAILED
    summaries = summarise(rows)
    print(table(rows, summaries))
    if args.output:
        failed = {case: sentence(error) for case, error in errors.items()}
        atomic_write_text(args.output, dump(rows, summaries, args.output.suffix, failed=failed, settings=settings))
    return FAILED if errors else DONE


def _evaluate_pairs(args: argparse.Namespace, pairs: list[Pair], settings: dict[str, Any]) -> tuple[list[Row], dict[str, Exception]]:
    """Rows of the cases that can be scored, and the errors of the others, which are printed, not raised."""
    from stseg3d.evaluate import evaluate_case
    from stseg3d.volumes import Case

    rows: list[Row] = []
    errors: dict[str, Exception] = {}
    for pair in progress(pairs, "cases"):
        try:
            rows += evaluate_case(pair, per_class=args.per_class, **settings)
        except Exception as error:  # a failing case never stops the others
            fail(error, args, Case(pair.case, pair.prediction))
            errors[pair.case] = error
    return rows, errors
