"""The command line: ``stseg3d segment | plan | train | select | calibrate | evaluate | compare | report | demo``, a module each.

Our own imports wait inside the commands here, and only here: ``stseg3d --help`` must answer without waiting seconds for torch and MONAI.
Exit status: 0 all done; 1 something failed; 2 the input or the arguments were bad; 130 stopped from the keyboard.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Sequence

from stseg3d import __version__
from stseg3d.cli.arguments import Parser
from stseg3d.cli.calibrate import add_calibrate
from stseg3d.cli.compare import add_compare
from stseg3d.cli.demo import add_demo
from stseg3d.cli.evaluate import add_evaluate
from stseg3d.cli.plan import add_plan
from stseg3d.cli.report import add_report
from stseg3d.cli.segment import add_segment
from stseg3d.cli.select import add_select
from stseg3d.cli.terminal import STOPPED, fail, log_to_stderr, say
from stseg3d.cli.train import add_train

COMMANDS = (add_segment, add_plan, add_train, add_select, add_calibrate, add_evaluate, add_compare, add_report, add_demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: Arguments without the program's name; by default the process's own.
    """
    if argv is None:
        _begin_program()
    log_to_stderr()
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except KeyboardInterrupt:
        say("stseg3d: stopped")
        return STOPPED
    except Exception as error:  # every failure is one sentence
        return fail(error, args)
    return status


def _begin_program() -> None:
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # third parties' deprecations; what a user should know, we log
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may have letters that a pipe lacks, on Windows


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="stseg3d", description="Segment-then-Segment in 3-D: a rough look at the whole volume, a close look at each object."
    )
    parser.add_argument("--version", action="version", version=f"stseg3d {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in COMMANDS:
        command, run = add(commands)
        command.add_argument("--traceback", action="store_true", help="with an error, show where it came from")
        command.set_defaults(run=run)
    return parser
