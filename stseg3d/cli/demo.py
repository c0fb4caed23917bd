"""``stseg3d demo``: the aorta in a phantom, or in the user's own CT."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from stseg3d.cli.arguments import Command, add_machine
from stseg3d.cli.terminal import DONE, loading


def add_demo(commands: Any) -> Command:
    """The command ``demo`` and its arguments."""
    command = commands.add_parser("demo", help="the aorta in a made-up CT, or in your own, with scores and a picture")
    command.add_argument("scan", nargs="?", type=Path, metavar="PATH", help="your own CT instead of the phantom")
    command.add_argument(
        "-o", dest="output_dir", type=Path, default=Path("stseg3d_demo"), metavar="OUT", help="folder (default: stseg3d_demo)"
    )
    command.add_argument("--seed", type=int, default=8, metavar="N", help="which phantom (default: 8)")
    add_machine(command)
    return command, _demo


def _demo(args: argparse.Namespace) -> int:
    with loading():
        from stseg3d.demo import demonstrate
        from stseg3d.machine.threads import set_threads
        from stseg3d.metrics import OVERLAPS

    logging.getLogger("stseg3d").setLevel(logging.INFO)
    set_threads(args.threads)
    demo = demonstrate(args.output_dir, args.scan, seed=args.seed, device=args.device)
    width = max(map(len, demo.files))
    for what, path in demo.files.items():
        print(f"{what:<{width}}  {path}")
    print(f"{'boxes':<{width}}  {demo.boxes}")
    if demo.counts:
        scores = ", ".join(f"{name} {metric(demo.counts):.3f}" for name, metric in OVERLAPS.items())
        print(f"{'scores':<{width}}  {scores}")
    return DONE
