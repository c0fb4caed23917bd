"""``stseg3d plan``: a new bundle for a user's labelled data, or the configs that a bundle's plan renders to."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from stseg3d.cli.arguments import Command, add_machine, ensure_own, setting
from stseg3d.cli.terminal import BAD, DONE, loading, progress, say

BYTES = {"MB": 1 << 20, "GB": 1 << 30}


def add_plan(commands: Any) -> Command:
    """The command ``plan`` and its arguments."""
    command = commands.add_parser("plan", help="make a bundle for your own labelled data, with nothing to edit")
    command.add_argument(
        "data", nargs="?", type=Path, metavar="DATA", help="labelled data: a folder, dataset.json or CSV, see data/README.md"
    )
    command.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder of the new bundle")
    command.add_argument("--images", type=Path, metavar="DIR", help="folder of the images, instead of DATA")
    command.add_argument("--labels", type=Path, metavar="DIR", help="folder of their labels, matched by name")
    command.add_argument("--channels", default="", metavar="A,B", help="channels to take, as the files' names end (default: all)")
    command.add_argument("--group", metavar="REGEX", help="patient in a case's name, such as 'p(\\d+)', kept in one list")
    command.add_argument(
        "--validation",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of the cases for validation, where there is no list (default: 0.2)",
    )
    command.add_argument(
        "--test", type=float, default=0.0, metavar="SHARE", help="share of the cases that are kept for a test list (default: 0)"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the lists (default: 0)")
    command.add_argument("--modality", choices=["CT", "MR", "microscopy"], help="what the images are (default: by their values)")
    command.add_argument("--stages", type=int, choices=[1, 2], help="number of stages (default: two where they can pay)")
    command.add_argument(
        "--memory", type=memory, metavar="SIZE", help="memory that training may take, such as 4GB (default: most of what is free)"
    )
    command.add_argument(
        "--set", action="append", type=setting, default=[], metavar="KEY=JSON", help="a plan entry, such as fine#size=[64,64,64]"
    )
    command.add_argument("--render", metavar="BUNDLE", help="only write the configs of a bundle anew from its plan.json")
    add_machine(command)
    return command, _plan


def memory(text: str) -> int:
    """Memory with its unit, in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(MB|GB)", text, re.IGNORECASE)
    if not match or not float(match[1]):
        msg = f"must be a size such as 800MB or 4GB, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(float(match[1]) * BYTES[match[2].upper()])


def _plan(args: argparse.Namespace) -> int:
    if args.render:
        return _render(args.render)
    if args.output is None:
        msg = "-o must name the folder of the new bundle; or --render a bundle whose plan.json was edited"
        raise ValueError(msg)
    with loading():
        from stseg3d.machine.threads import set_threads
        from stseg3d.planning.findings import WIDTH, findings_text
        from stseg3d.planning.new_bundle import Wishes, plan_bundle

    set_threads(args.threads)
    wishes = Wishes(
        modality=args.modality,
        stages=args.stages,
        memory_bytes=args.memory,
        group=args.group,
        validation=args.validation,
        test=args.test,
        seed=args.seed,
        device=args.device,
        entries=dict(args.set),
    )
    planned = plan_bundle(
        args.output,
        args.data,
        images=args.images,
        labels=args.labels,
        channels=[name for name in args.channels.split(",") if name],
        wishes=wishes,
        progress=lambda cases, count: progress(cases, "cases", total=count),
    )
    if planned.findings:
        say(findings_text(planned.findings).rstrip())
    if planned.bundle is None:
        say("stseg3d: no bundle was made; mend the errors above and plan again")
        return BAD
    print(planned.table().text(WIDTH))
    say(f"stseg3d: {planned.bundle} is ready: `stseg3d train {planned.bundle}`")
    return DONE


def _render(folder: str) -> int:
    with loading():
        from stseg3d.bundle import find_bundle, render_bundle

    bundle = find_bundle(folder)
    ensure_own(folder, bundle, "edit")
    files = render_bundle(bundle)
    for path in files:
        print(path)
    if not files:
        say(f"stseg3d: {bundle}: the configs are what plan.json renders to")
    return DONE
