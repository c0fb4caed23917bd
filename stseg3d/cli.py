"""The command line: ``stseg3d segment | train | calibrate | evaluate | demo``.

Our own imports wait inside the commands here, and only here: ``stseg3d --help`` must answer without waiting seconds for torch and MONAI.
Exit status: 0 all done; 1 something failed; 2 the input or the arguments were bad; 130 stopped from the keyboard.
"""

from __future__ import annotations

import argparse
import json
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
    from stseg3d.evaluate import Pair, Row
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
    _ensure_own(args.bundle, bundle, "train")
    _set_threads(args.threads)
    names = ("epochs", "budget_s", "seed", "weights", "folds")
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    options |= {"overrides": dict(args.set)} if args.set else {}
    print(train_bundle(bundle, args.data, stage=args.stage, device=args.device, **options))
    return DONE


def _calibrate(args: argparse.Namespace) -> int:
    from stseg3d.bundle import find_bundle
    from stseg3d.planning import Calibration, Calibrator, labelled_cases, write_policy

    bundle = find_bundle(args.bundle)
    if args.write:
        _ensure_own(args.bundle, bundle, "calibrate")
    _ensure_table(args.output)
    _set_threads(args.threads)
    cases = labelled_cases(args.data, args.part)
    chain = {name: getattr(args, name) for name in ("thresholds", "margins") if getattr(args, name) is not None}
    calibrator = Calibrator(bundle, args.device, **chain)
    found = Calibration.of(calibrator, [calibrator.measure(case) for case in _progress(cases, "cases")], args.part, args.coverage)
    print(found.table(), *found.sentences(), sep="\n")
    if args.output:
        args.output.write_text(found.dump(args.output.suffix), encoding="utf-8")
    if args.write and not found.numbers:
        msg = f"--write needs a policy that reaches --coverage {args.coverage:g}, got none; the bundle is as it was"
        raise ValueError(msg)
    if args.write:
        files = " and ".join(map(str, write_policy(bundle, found.numbers)))
        print(f"Written into {files}. Train the fine network again: it is to see such boxes.")
    return DONE


def _ensure_own(given: str, bundle: Path, verb: str) -> None:
    if not Path(given).expanduser().is_dir():
        msg = f"DIR must be a folder of your own, got the embedded {bundle.name}: copy {bundle} and {verb} the copy"
        raise ValueError(msg)


def _ensure_table(output: Path | None) -> None:
    if output and output.suffix not in (".csv", ".json"):
        msg = f"-o must end on .csv or .json, got {output}"
        raise ValueError(msg)
    if output and not output.parent.is_dir():
        msg = f"-o must lie in a folder that exists, got {output}"
        raise FileNotFoundError(msg)


def _evaluate(args: argparse.Namespace) -> int:
    from stseg3d.evaluate import dump, pair_cases, summarise, table

    _ensure_table(args.output)
    pairs = pair_cases(args.prediction, args.label, part=args.part)
    settings = {name: getattr(args, name) for name in ("tolerance_mm", "boundary_mm", "objects")}
    rows, errors = _evaluate_pairs(args, pairs, settings)
    if not rows:
        return BAD if all(isinstance(error, BAD_INPUT) for error in errors.values()) else FAILED
    summaries = summarise(rows)
    print(table(rows, summaries))
    if args.output:
        failed = {case: _sentence(error) for case, error in errors.items()}
        args.output.write_text(dump(rows, summaries, args.output.suffix, failed=failed, settings=settings), encoding="utf-8")
    return FAILED if errors else DONE


def _evaluate_pairs(args: argparse.Namespace, pairs: list[Pair], settings: dict[str, Any]) -> tuple[list[Row], dict[str, Exception]]:
    """Rows of the cases that can be scored, and why the others can not; errors are told, not raised."""
    from stseg3d.evaluate import evaluate_case
    from stseg3d.volumes import Case

    rows: list[Row] = []
    errors: dict[str, Exception] = {}
    for pair in _progress(pairs, "cases"):
        try:
            rows += evaluate_case(pair, per_class=args.per_class, **settings)
        except Exception as error:  # a failing case never stops the others
            _fail(error, args, Case(pair.case, pair.prediction))
            errors[pair.case] = error
    return rows, errors


def _compare(args: argparse.Namespace) -> int:
    from stseg3d.compare import advise, compare, summary_text, write_outputs

    logging.getLogger("stseg3d").setLevel(logging.INFO)
    _set_threads(args.threads)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    names = ("sizes", "rough_sizes", "sliding_sizes", "ways", "part", "budget_s", "device", "seed", "threads")
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    comparison = compare(args.bundle, args.data, args.output_dir, overrides=dict(args.overrides), **options)
    files = write_outputs(comparison, args.data, args.output_dir)
    print(summary_text(comparison))
    for path in files:
        print(path)
    print(advise(comparison).sentence)
    return DONE


def _demo(args: argparse.Namespace) -> int:
    from stseg3d.demo import demonstrate
    from stseg3d.metrics import OVERLAPS

    logging.getLogger("stseg3d").setLevel(logging.INFO)
    _set_threads(args.threads)
    demo = demonstrate(args.output_dir, args.scan, seed=args.seed, device=args.device)
    width = max(map(len, demo.files))
    for what, path in demo.files.items():
        print(f"{what:<{width}}  {path}")
    print(f"{'boxes':<{width}}  {demo.boxes}")
    if demo.counts:
        scores = ", ".join(f"{name} {metric(demo.counts):.3f}" for name, metric in OVERLAPS.items())
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
    for add in (_add_segment, _add_train, _add_calibrate, _add_evaluate, _add_compare, _add_demo):
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
    command.add_argument(
        "--folds", type=_positive, metavar="K", help="rough networks that each predict cases they have not seen, for the fine stage"
    )
    command.add_argument(
        "--set", action="append", type=_setting, default=[], metavar="KEY=JSON", help="an entry of train.json, such as ema_decay=0.99"
    )
    _add_machine(command)
    return command, _train


def _add_calibrate(commands: Any) -> Command:
    command = commands.add_parser("calibrate", help="threshold and margin whose boxes hold the objects, and what is guaranteed of them")
    command.add_argument("bundle", metavar="BUNDLE", help="folder of a trained bundle, or an embedded one")
    command.add_argument("--data", required=True, type=Path, metavar="DATASET.json", help="cases with labels, see data/README.md")
    command.add_argument(
        "--part", choices=["training", "validation", "test"], default="validation", help="of the dataset.json (default: validation)"
    )
    command.add_argument(
        "--coverage", type=_share, default=0.99, metavar="SHARE", help="of the objects' voxels that are to lie in boxes (default: 0.99)"
    )
    command.add_argument("--thresholds", type=_numbers, metavar="A,B,...", help="to choose from (default: 0.5 down to 0.05)")
    command.add_argument(
        "--margins", type=_numbers, metavar="A,B,...", help="to choose from, in mm if the bundle names margin_mm, else in rough voxels"
    )
    command.add_argument("-o", dest="output", type=Path, metavar="OUT", help="write the table to a .csv or .json, too")
    command.add_argument("--write", action="store_true", help="put what was chosen into the bundle's inference.json and train.json")
    _add_machine(command)
    return command, _calibrate


def _add_evaluate(commands: Any) -> Command:
    command = commands.add_parser("evaluate", help="overlap, distances in mm and objects of predictions against labels, with intervals")
    command.add_argument("prediction", type=Path, metavar="PRED", help="file or folder; <id>_seg.nii.gz goes with the label <id>.nii.gz")
    command.add_argument("label", type=Path, metavar="LABEL", help="file, folder or dataset.json")
    command.add_argument("-o", dest="output", type=Path, metavar="OUT", help="write every metric to a .csv or .json, too")
    command.add_argument("--per-class", action="store_true", help="a row for each class, too, beside the foreground (label above 0)")
    command.add_argument("--objects", choices=["labels", "components"], help="score objects, too: label values, or connected components")
    command.add_argument("--tolerance-mm", type=_length, default=1.0, metavar="MM", help="surfaces this near agree, in nsd (default: 1)")
    command.add_argument("--boundary-mm", type=_length, default=2.0, metavar="MM", help="width of boundary_iou_fixed (default: 2)")
    command.add_argument(
        "--part", choices=["training", "validation", "test"], default="validation", help="of a dataset.json (default: validation)"
    )
    return command, _evaluate


def _add_compare(commands: Any) -> Command:
    command = commands.add_parser(
        "compare", help="does cropping pay on your data? four ways at several input sizes, with figures and advice"
    )
    command.add_argument("bundle", metavar="NAME_OR_DIR", help="bundle whose networks, policy and recipe are used")
    command.add_argument("--data", required=True, type=Path, metavar="DATASET.json", help="training and validation lists")
    command.add_argument(
        "-o", dest="output_dir", type=Path, default=Path("stseg3d_compare"), metavar="OUT", help="folder of all runs, tables and figures"
    )
    command.add_argument("--sizes", type=_sizes, default=[32, 48, 64], metavar="N,N", help="input sizes in voxels (default: 32,48,64)")
    command.add_argument("--rough-sizes", type=_sizes, metavar="N,N", help="further sizes of the rough network alone, such as 96,128")
    command.add_argument(
        "--sliding-sizes", type=_sizes, metavar="N,N", help="sizes of the sliding window, the costliest way (default: all)"
    )
    command.add_argument(
        "--ways", type=lambda text: text.split(","), metavar="WAY,WAY", help="rough_only,two_stage,sliding_window,true_boxes"
    )
    command.add_argument(
        "--part", choices=["training", "validation", "test"], default="validation", help="cases to score (default: validation)"
    )
    command.add_argument("--budget", dest="budget_s", type=_seconds, metavar="TIME", help="for all training together, such as 30min or 6h")
    command.add_argument("--seed", type=int, metavar="N", help="of weights, order and augmentation (default: 0)")
    command.add_argument(
        "--set", dest="overrides", type=_setting, action="append", default=[], metavar="KEY=JSON", help="change a config entry of every run"
    )
    _add_machine(command)
    return command, _compare


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


def _length(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", text):
        msg = f"must be a number of mm, 0 or more, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return float(text)


def _share(text: str) -> float:
    if not re.fullmatch(r"0?\.\d+", text) or not float(text):
        msg = f"must be a share above 0 and below 1, such as 0.99, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return float(text)


def _numbers(text: str) -> tuple[float, ...]:
    if not re.fullmatch(r"\d*\.?\d+(,\d*\.?\d+)*", text):
        msg = f"must be numbers such as 0.5,0.3,0.1, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return tuple(float(part) for part in text.split(","))


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except ValueError as error:
        msg = f"must be KEY=JSON, such as ema_decay=0.99, rough_channel=true or target='\"component\"', got {text!r}"
        raise argparse.ArgumentTypeError(msg) from error


def _sizes(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        msg = f"must be sizes such as 32,48,64, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return [int(part) for part in text.split(",")]


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
