"""``stseg3d select``: the best of a bundle's candidates by cross-validation, as one bundle."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from stseg3d.cli.arguments import Command, add_machine, add_trust
from stseg3d.cli.terminal import DONE, loading, say


def add_select(commands: Any) -> Command:
    """The command ``select`` and its arguments."""
    command = commands.add_parser("select", help="the best of what `train --folds` has trained, on cases not seen, as one bundle")
    command.add_argument("bundle", type=Path, metavar="DIR", help="folder of the bundle, whose folds are trained")
    command.add_argument("-o", dest="output", type=Path, required=True, metavar="OUT", help="folder of the selected bundle")
    one = "the networks of one fold, instead of the mean of all, which takes as many times as long to segment"
    command.add_argument("--single", action="store_true", help=one)
    add_trust(command)
    add_machine(command)
    return command, _select


def _select(args: argparse.Namespace) -> int:
    with loading():
        from tqdm import tqdm

        from stseg3d.machine.threads import set_threads
        from stseg3d.selection import select_bundle

    set_threads(args.threads)
    bar = partial(tqdm, desc="folds", unit="fold", disable=None)
    found = select_bundle(args.bundle, args.output, single=args.single, device=args.device, trust=args.trust, progress=bar)
    print(found.table().text(), found.decisions().text(), args.output, sep="\n\n")
    say(f"stseg3d: {args.output} is {found.final.name}: {found.form}")
    return DONE
