"""``stseg3d train``: a bundle's networks on the user's own labels."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from stseg3d.cli.arguments import Command, add_machine, add_settings, add_trust, ensure_own, positive, seconds
from stseg3d.cli.terminal import DONE, loading, say

WEIGHTS, STAGES = Path("models", "model.pt"), Path("models", "stages")


def add_train(commands: Any) -> Command:
    """The command ``train`` and its arguments."""
    command = commands.add_parser("train", help="train a bundle's rough and fine networks on a dataset.json")
    command.add_argument("bundle", metavar="DIR", help="folder of the bundle")
    command.add_argument(
        "--data", type=Path, metavar="DATASET.json", help="training and validation lists (default: those that the bundle was planned for)"
    )
    command.add_argument(
        "--stage", choices=["rough", "fine", "all"], default="all", help="which network (default: all, then models/model.pt)"
    )
    command.add_argument("--epochs", type=positive, metavar="N", help="epochs of each stage (default: what the bundle says)")
    command.add_argument(
        "--budget",
        dest="budget_s",
        type=seconds,
        metavar="TIME",
        help="train this long over all stages (and folds), such as 30min or 2h; --epochs may end it earlier",
    )
    command.add_argument("--seed", type=int, metavar="N", help="of weights, order and augmentation (default: what the bundle says)")
    command.add_argument("--from", dest="weights", type=Path, metavar="WEIGHTS", help="start from these weights")
    command.add_argument(
        "--folds",
        type=positive,
        metavar="K",
        help="train each candidate K times, each without a part of the patients, for `stseg3d select`",
    )
    add_settings(command, "a plan entry, such as training#ema_decay=0.99")
    command.add_argument("--overwrite", action="store_true", help="replace the weights that the bundle has")
    add_trust(command)
    add_machine(command)
    return command, _train


def _train(args: argparse.Namespace) -> int:
    with loading():
        from tqdm import tqdm

        from stseg3d.bundle import find_bundle
        from stseg3d.machine.threads import set_threads
        from stseg3d.training.outcome import score_trained
        from stseg3d.training.processes import rank
        from stseg3d.training.run import train_bundle

    bundle = find_bundle(args.bundle)
    ensure_own(args.bundle, bundle, "train")
    data = args.data or bundle / "data" / "dataset.json"
    if args.data is None and not data.is_file():
        msg = f"--data must name a dataset.json, as {bundle} has none of its own"
        raise ValueError(msg)
    set_threads(args.threads)
    options = {name: value for name in ("epochs", "budget_s", "seed") if (value := getattr(args, name)) is not None}
    options |= {"device": args.device, "overrides": dict(args.overrides), "trust": args.trust}
    if args.folds:
        return _train_folds(args, bundle, data, options)
    _ensure_unfinished(bundle, overwrite=args.overwrite)
    weights = train_bundle(bundle, data, stage=args.stage, **options, **({"weights": args.weights} if args.weights else {}))
    if rank() == 0:
        print(weights)
        if weights == bundle / WEIGHTS:
            bar = partial(tqdm, desc="validation", unit="case", disable=None)
            print(score_trained(bundle, data, device=args.device, trust=args.trust, progress=bar).text())
    return DONE


def _train_folds(args: argparse.Namespace, bundle: Path, data: Path, options: dict[str, Any]) -> int:
    from stseg3d.selection import train_folds

    if args.weights or args.stage != "all":
        given = f"--from {args.weights}, which may have seen the cases held out" if args.weights else f"--stage {args.stage}"
        msg = f"--folds must train all stages from the beginning, got {given}"
        raise ValueError(msg)

    def tell(folder: Path, number: int, count: int) -> None:
        say(f"stseg3d: {folder.parent.name}, {folder.name}: training {number} of {count}")

    train_folds(bundle, data, args.folds, tell=tell, **options)
    say(f"stseg3d: all folds are trained: `stseg3d select {bundle} -o OUT`")
    return DONE


def _ensure_unfinished(bundle: Path, *, overwrite: bool) -> None:
    """Refuse to replace weights, unless they are to be, or a training that replaces them has begun."""
    if overwrite or not (bundle / WEIGHTS).is_file() or (bundle / STAGES).is_dir():
        return
    msg = f"{bundle / WEIGHTS} must not be replaced unasked: give --overwrite, or train a copy of the bundle"
    raise ValueError(msg)
