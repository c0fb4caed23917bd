"""``stseg3d report``: one HTML page for a folder of results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stseg3d.cli.arguments import Command
from stseg3d.cli.terminal import DONE, loading, progress


def add_report(commands: Any) -> Command:
    """The command ``report`` and its arguments."""
    command = commands.add_parser("report", help="one HTML page for a folder of results: table, pictures, 3-D views, distributions")
    command.add_argument("out", type=Path, metavar="OUT", help="folder that `stseg3d segment` wrote")
    command.add_argument("--labels", type=Path, metavar="FOLDER", help="ground truth <case>.nii.gz, or a dataset.json, to score against")
    command.add_argument("--images", type=Path, metavar="FOLDER", help="the images, if they are no longer where they were read from")
    command.add_argument("-o", dest="output", type=Path, metavar="PAGE", help="the page (default: OUT/report.html)")
    views = "3-D views: in the page, in files beside it, or none (default: embed)"
    command.add_argument("--volumes", choices=["embed", "link", "none"], default="embed", help=views)
    return command, _report


def _report(args: argparse.Namespace) -> int:
    with loading():
        from stseg3d.report import write_report

    options = {name: getattr(args, name) for name in ("images", "labels", "volumes")}
    page, _ = write_report(args.out, args.output, **options, progress=lambda records: progress(records, "cases"))
    print(page)
    return DONE
