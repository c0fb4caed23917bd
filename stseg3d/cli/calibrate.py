"""``stseg3d calibrate``: threshold and margin of a bundle's boxes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stseg3d.cli.arguments import PARTS, Command, add_machine, add_trust, ensure_own, ensure_table, numbers, share
from stseg3d.cli.terminal import DONE, loading, progress


def add_calibrate(commands: Any) -> Command:
    """The command ``calibrate`` and its arguments."""
    command = commands.add_parser("calibrate", help="threshold and margin whose boxes hold the objects, and what is guaranteed of them")
    command.add_argument("bundle", metavar="BUNDLE", help="folder of a trained bundle, or an embedded one")
    command.add_argument("--data", required=True, type=Path, metavar="DATASET.json", help="cases with labels, see data/README.md")
    command.add_argument("--part", choices=PARTS, default="validation", help="of the dataset.json (default: validation)")
    command.add_argument(
        "--coverage", type=share, default=0.99, metavar="SHARE", help="of the objects' voxels that are to lie in boxes (default: 0.99)"
    )
    command.add_argument("--thresholds", type=numbers, metavar="A,B,...", help="to choose from (default: 0.5 down to 0.05)")
    command.add_argument(
        "--margins", type=numbers, metavar="A,B,...", help="to choose from, in mm if the bundle names margin_mm, else in rough voxels"
    )
    command.add_argument("-o", dest="output", type=Path, metavar="OUT", help="write the table to a .csv or .json, too")
    command.add_argument("--write", action="store_true", help="put what was chosen into the bundle's plan.json")
    add_trust(command)
    add_machine(command)
    return command, _calibrate


def _calibrate(args: argparse.Namespace) -> int:
    with loading():
        from stseg3d.bundle import find_bundle
        from stseg3d.machine.files import atomic_write_text
        from stseg3d.machine.threads import set_threads
        from stseg3d.planning import Calibration, Calibrator, labelled_cases, write_policy

    bundle = find_bundle(args.bundle)
    if args.write:
        ensure_own(args.bundle, bundle, "calibrate")
    ensure_table(args.output)
    set_threads(args.threads)
    cases = labelled_cases(args.data, args.part)
    chain = {name: getattr(args, name) for name in ("thresholds", "margins") if getattr(args, name) is not None}
    calibrator = Calibrator(bundle, args.device, trust=args.trust, **chain)
    found = Calibration.of(calibrator, [calibrator.measure(case) for case in progress(cases, "cases")], args.part, args.coverage)
    print(found.table(), *found.sentences(), sep="\n")
    if args.output:
        atomic_write_text(args.output, found.dump(args.output.suffix))
    if args.write and not found.numbers:
        msg = f"--write needs a policy that reaches --coverage {args.coverage:g}, got none; the bundle is as it was"
        raise ValueError(msg)
    if args.write:
        files = " and ".join(map(str, write_policy(bundle, found.numbers, trust=args.trust)))
        print(f"Written into {files}. Train the fine network again: it is to see such boxes.")
    return DONE
