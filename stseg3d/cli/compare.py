"""``stseg3d compare``: four ways at several input sizes."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from stseg3d.cli.arguments import PARTS, Command, add_machine, add_settings, add_trust, positive, seconds, sizes
from stseg3d.cli.terminal import DONE, loading


def add_compare(commands: Any) -> Command:
    """The command ``compare`` and its arguments."""
    command = commands.add_parser(
        "compare", help="does cropping pay on your data? four ways at several input sizes, with figures and advice"
    )
    command.add_argument("bundle", metavar="NAME_OR_DIR", help="bundle whose networks, policy and recipe are used")
    command.add_argument("--data", required=True, type=Path, metavar="DATASET.json", help="training and validation lists")
    command.add_argument(
        "-o", dest="output_dir", type=Path, default=Path("stseg3d_compare"), metavar="OUT", help="folder of all runs, tables and figures"
    )
    command.add_argument("--sizes", type=sizes, default=[32, 48, 64], metavar="N,N", help="input sizes in voxels (default: 32,48,64)")
    command.add_argument("--rough-sizes", type=sizes, metavar="N,N", help="further sizes of the rough network alone, such as 96,128")
    command.add_argument("--sliding-sizes", type=sizes, metavar="N,N", help="sizes of the sliding window, the costliest way (default: all)")
    command.add_argument(
        "--ways", type=lambda text: text.split(","), metavar="WAY,WAY", help="rough_only,two_stage,sliding_window,true_boxes"
    )
    command.add_argument("--part", choices=PARTS, default="validation", help="cases to score (default: validation)")
    command.add_argument("--budget", dest="budget_s", type=seconds, metavar="TIME", help="for all training together, such as 30min or 6h")
    command.add_argument("--epochs", type=positive, metavar="N", help="epochs of each stage (default: what the bundle says)")
    command.add_argument("--seed", type=int, metavar="N", help="of weights, order and augmentation (default: 0)")
    add_settings(command, "change a plan entry of every run")
    add_trust(command)
    add_machine(command)
    return command, _compare


def _compare(args: argparse.Namespace) -> int:
    with loading():
        from stseg3d.compare import advise, compare, summary_text, write_outputs
        from stseg3d.machine.threads import set_threads

    logging.getLogger("stseg3d").setLevel(logging.INFO)
    set_threads(args.threads)
    names = ("sizes", "rough_sizes", "sliding_sizes", "ways", "part", "budget_s", "epochs", "device", "seed", "threads")
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    comparison = compare(args.bundle, args.data, args.output_dir, overrides=dict(args.overrides), trust=args.trust, **options)
    files = write_outputs(comparison, args.data, args.output_dir)
    print(summary_text(comparison))
    for path in files:
        print(path)
    print(advise(comparison).sentence)
    return DONE
