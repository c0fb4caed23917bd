"""``stseg3d plan``: the configs that a bundle's plan renders to."""

from __future__ import annotations

import argparse
from typing import Any

from stseg3d.cli.arguments import Command, ensure_own
from stseg3d.cli.terminal import DONE, loading, say


def add_plan(commands: Any) -> Command:
    """The command ``plan`` and its arguments."""
    command = commands.add_parser("plan", help="write the configs of a bundle anew from its plan.json")
    command.add_argument("--render", required=True, metavar="DIR", help="folder of the bundle, with configs/plan.json")
    return command, _plan


def _plan(args: argparse.Namespace) -> int:
    with loading():
        from stseg3d.bundle import find_bundle, render_bundle

    bundle = find_bundle(args.render)
    ensure_own(args.render, bundle, "edit")
    files = render_bundle(bundle)
    for path in files:
        print(path)
    if not files:
        say(f"stseg3d: {bundle}: the configs are what plan.json renders to")
    return DONE
