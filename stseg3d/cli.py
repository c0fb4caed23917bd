"""The command line: ``stseg3d segment | train | evaluate | demo``.

Our own imports wait inside the commands here, and only here: ``stseg3d --help`` must answer without waiting seconds for torch and MONAI.
Exit status: 0 all done; 1 something failed; 2 the input or the arguments were bad; 130 stopped from the keyboard.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from stseg3d.volumes import Case

BAD_INPUT = (ValueError, OSError)  # everything else that is raised is a failure of ours
DONE, FAILED, BAD, STOPPED = 0, 1, 2, 130
SECONDS = {"s": 1, "min": 60, "h": 3600}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: Arguments without the program's name; by default the process's own.
    """
    if argv is None and not sys.warnoptions:
        warnings.simplefilter("ignore")  # third parties' deprecations; what a user should know, we log
    _log_to_stderr()
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except KeyboardInterrupt:
        _say("stseg3d: stopped")
        return STOPPED
    except Exception as error:  # every failure is one sentence
        return _fail(error, args)
    return status


# --- commands ----------------------------------------------------------------


def _segment(args: argparse.Namespace) -> int:
    from stseg3d.bundle import find_bundle

    bundle = find_bundle(args.bundle)
    cases, errors = _cases(args)
    failed: list[Exception] = []
    if cases:
        _set_threads(args.threads)
        failed = _segment_cases(args, bundle, cases)
    if not errors and not failed:
        return DONE
    return BAD if len(failed) == len(cases) and all(isinstance(e, BAD_INPUT) for e in errors + failed) else FAILED


def _segment_cases(args: argparse.Namespace, bundle: Path, cases: list[Case]) -> list[Exception]:
    """Segment one case after the other; errors are told and returned, not raised."""
    from stseg3d.inference.segment import Segmenter
    from stseg3d.volumes import ensure_writable

    options: dict[str, Any] = {"rough_only": True} if args.rough_only else {}
    if args.batch_size:
        options["overrides"] = {"displayable_configs#batch_size": args.batch_size}
    new = not args.output_dir.exists()
    ensure_writable(args.output_dir)
    errors: list[Exception] = []
    try:
        segmenter = Segmenter(bundle, device=args.device, output=args.output, **options)
        for case in _progress(cases, "cases"):
            try:
                outcome = segmenter.segment(case, args.output_dir, mask=args.mask, boxes=args.boxes)
            except Exception as error:  # a failing case never stops the batch
                _fail(error, args, case)
                errors.append(error)
            else:
                print(outcome.output, flush=True)
    finally:
        if new and args.output_dir.is_dir() and not any(args.output_dir.iterdir()):
            args.output_dir.rmdir()  # bad input leaves nothing behind
    return errors


def _cases(args: argparse.Namespace) -> tuple[list[Case], list[Exception]]:
    """Cases of the inputs that can be segmented, and why the others can not."""
    from stseg3d.volumes import find_cases, output_name

    good: list[Path] = []
    errors: list[Exception] = []
    for path in args.inputs:
        try:
            find_cases([path], skip_outputs=True)
        except BAD_INPUT as error:
            _fail(error, args)
            errors.append(error)
        else:
            good.append(path)
    cases = find_cases(good, skip_outputs=True) if good else []  # together: two cases of one name would overwrite each other
    if (args.mask or args.boxes) and len(cases) + len(errors) > 1:
        msg = f"--mask and --boxes are for one case, got {len(cases) + len(errors)}"
        raise ValueError(msg)
    todo = []
    for case in cases:
        output = args.output_dir / output_name(case.id)
        if output.exists() and not args.overwrite:
            msg = f"output {output} is there already; --overwrite replaces it"
            errors.append(FileExistsError(msg))
            _fail(errors[-1], args)
        else:
            todo.append(case)
    return todo, errors


def _train(args: argparse.Namespace) -> int:
    from stseg3d.bundle import find_bundle
    from stseg3d.training.run import train_bundle

    bundle = find_bundle(args.bundle)
    if not Path(args.bundle).expanduser().is_dir():
        msg = f"DIR must be a folder of your own, got the embedded {bundle.name}: copy {bundle} and train the copy"
        raise ValueError(msg)
    _set_threads(args.threads)
    options = {name: getattr(args, name) for name in ("epochs", "budget_s", "seed", "weights") if getattr(args, name) is not None}
    print(train_bundle(bundle, args.data, stage=args.stage, device=args.device, **options))
    return DONE


def _evaluate(args: argparse.Namespace) -> int:
    from stseg3d.evaluate import dump, evaluate_case, mean_rows, pair_cases, table

    if args.output and args.output.suffix not in (".csv", ".json"):
        msg = f"-o must end on .csv or .json, got {args.output}"
        raise ValueError(msg)
    if args.output and not args.output.parent.is_dir():
        msg = f"-o must lie in a folder that exists, got {args.output}"
        raise FileNotFoundError(msg)
    pairs = pair_cases(args.prediction, args.label, part=args.part)
    rows = [row for pair in _progress(pairs, "cases") for row in evaluate_case(pair, per_class=args.per_class)]
    rows += mean_rows(rows)
    print(table(rows))
    if args.output:
        args.output.write_text(dump(rows, args.output.suffix), encoding="utf-8")
    return DONE


def _demo(args: argparse.Namespace) -> int:
    from stseg3d.demo import demonstrate
    from stseg3d.metrics import METRICS

    logging.getLogger("stseg3d").setLevel(logging.INFO)
    _set_threads(args.threads)
    demo = demonstrate(args.output_dir, args.scan, seed=args.seed, device=args.device)
    width = max(map(len, demo.files))
    for what, path in demo.files.items():
        print(f"{what:<{width}}  {path}")
    print(f"{'boxes':<{width}}  {demo.boxes}")
    if demo.counts:
        scores = ", ".join(f"{name} {metric(demo.counts):.3f}" for name, metric in METRICS.items())
        print(f"{'scores':<{width}}  {scores}")
    return DONE


# --- arguments ---------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(BAD, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    from stseg3d import __version__

    parser = _Parser(
        prog="stseg3d", description="Segment-then-Segment in 3-D: a rough look at the whole volume, a close look at each object."
    )
    parser.add_argument("--version", action="version", version=f"stseg3d {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_segment, _add_train, _add_evaluate, _add_demo):
        command, run = add(commands)
        command.add_argument("--traceback", action="store_true", help="with an error, show where it came from")
        command.set_defaults(run=run)
    return parser


Command = tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int]]


def _add_segment(commands: Any) -> Command:
    from stseg3d.bundle import bundle_names

    command = commands.add_parser("segment", help="label maps for images: files, folders or DICOM series in, NIfTI + JSON out")
    command.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="image file, folder of one DICOM series, or folder of either"
    )
    named = f" ({', '.join(bundle_names())})" if bundle_names() else ""
    command.add_argument("--bundle", required=True, metavar="NAME_OR_DIR", help=f"folder of a bundle, or an embedded one{named}")
    command.add_argument("-o", dest="output_dir", required=True, type=Path, metavar="OUT", help="folder for <case>_seg.nii.gz and .json")
    command.add_argument("--output", choices=["labels", "instances", "probabilities"], help="what to write (default: what the bundle says)")
    command.add_argument("--mask", type=Path, help="label map whose objects are looked at closely, instead of a rough look; one case only")
    command.add_argument(
        "--boxes", type=Path, metavar="FILE", help="boxes to look at closely (JSON or CSV), instead of a rough look; one case only"
    )
    command.add_argument("--rough-only", action="store_true", help="stop after the rough look: the baseline of what the second look gains")
    command.add_argument("--batch-size", type=_positive, metavar="N", help="crops that go through the network at once")
    command.add_argument("--overwrite", action="store_true", help="replace outputs that are there already")
    _add_machine(command)
    return command, _segment


def _add_train(commands: Any) -> Command:
    command = commands.add_parser("train", help="train a bundle's rough and fine networks on a dataset.json")
    command.add_argument("bundle", metavar="DIR", help="folder of the bundle")
    command.add_argument(
        "--data", required=True, type=Path, metavar="DATASET.json", help="training and validation lists, see data/README.md"
    )
    command.add_argument(
        "--stage", choices=["rough", "fine", "all"], default="all", help="which network (default: all, then models/model.pt)"
    )
    command.add_argument("--epochs", type=_positive, metavar="N", help="epochs of each stage (default: what the bundle says)")
    command.add_argument(
        "--budget", dest="budget_s", type=_seconds, metavar="TIME", help="stop after this long, such as 30min or 2h, over all stages"
    )
    command.add_argument("--seed", type=int, metavar="N", help="of weights, order and augmentation (default: what the bundle says)")
    command.add_argument("--from", dest="weights", type=Path, metavar="WEIGHTS", help="start from these weights")
    _add_machine(command)
    return command, _train


def _add_evaluate(commands: Any) -> Command:
    command = commands.add_parser("evaluate", help="Dice, IoU, precision and recall of predictions against labels")
    command.add_argument("prediction", type=Path, metavar="PRED", help="file or folder; <id>_seg.nii.gz goes with the label <id>.nii.gz")
    command.add_argument("label", type=Path, metavar="LABEL", help="file, folder or dataset.json")
    command.add_argument("-o", dest="output", type=Path, metavar="OUT", help="write the rows to a .csv or .json, too")
    command.add_argument("--per-class", action="store_true", help="a row for each class, too, beside the foreground (label above 0)")
    command.add_argument(
        "--part", choices=["training", "validation", "test"], default="validation", help="of a dataset.json (default: validation)"
    )
    return command, _evaluate


def _add_demo(commands: Any) -> Command:
    command = commands.add_parser("demo", help="the aorta in a made-up CT, or in your own, with scores and a picture")
    command.add_argument("scan", nargs="?", type=Path, metavar="PATH", help="your own CT instead of the phantom")
    command.add_argument(
        "-o", dest="output_dir", type=Path, default=Path("stseg3d_demo"), metavar="OUT", help="folder (default: stseg3d_demo)"
    )
    command.add_argument("--seed", type=int, default=8, metavar="N", help="which phantom (default: 8)")
    _add_machine(command)
    return command, _demo


def _add_machine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", type=_device, help="auto, cpu, cuda or cuda:N (default: auto)")
    command.add_argument("--threads", type=_positive, metavar="N", help="CPU threads (default: all cores)")


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        msg = f"must be auto, cpu, cuda or cuda:N, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return text


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d*", text):
        msg = f"must be a whole number above 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text)
    if not match or not float(match[1]):
        msg = f"must be a time such as 90s, 30min or 2h, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return float(match[1]) * SECONDS[match[2]]


# --- the terminal ------------------------------------------------------------


def _fail(error: Exception, args: argparse.Namespace, case: Case | None = None) -> int:
    """Tell an error in one sentence, and return the exit status it stands for."""
    bad = isinstance(error, BAD_INPUT)
    text = _sentence(error) or "no reason given"
    if case and case.image.name not in text:
        text = f"{case.id}: {text}"
    _say(f"stseg3d: error: {text if bad else f'{type(error).__name__}: {text}'}")
    if args.traceback:
        _say("".join(traceback.format_exception(error)).rstrip())
    return BAD if bad else FAILED


def _sentence(text: object) -> str:
    return " ".join(str(text).split())


def _say(text: str) -> None:
    """Print to stderr, above a progress bar if there is one."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


def _progress(items: Sequence[Any], unit: str) -> Any:
    """Iterate over ``items`` with a bar on stderr, where that is a terminal."""
    from tqdm import tqdm

    return tqdm(items, unit=unit.removesuffix("s"), file=sys.stderr, disable=None)


class _Say(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(f"stseg3d: {_sentence(record.getMessage())}")


def _log_to_stderr() -> None:
    """Show what the package logs, warnings and above."""
    logger = logging.getLogger("stseg3d")
    if not any(isinstance(handler, _Say) for handler in logger.handlers):
        logger.addHandler(_Say())
    logger.setLevel(logging.WARNING)


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)  # read by SimpleITK and itk when they start
    import torch

    torch.set_num_threads(threads)
