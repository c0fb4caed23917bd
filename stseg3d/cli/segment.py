"""``stseg3d segment``: label maps for images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stseg3d.cli.arguments import PARTS, Command, add_machine, add_trust, positive, seconds
from stseg3d.cli.terminal import BAD, DONE, FAILED, fail, loading, progress, say, sentence
from stseg3d.machine.threads import cores

if TYPE_CHECKING:
    from stseg3d.batch import BatchResult, CaseOutcome, Runner
    from stseg3d.inference import Request
    from stseg3d.volumes import Case
    from stseg3d.volumes.ahead import CaseAhead


def add_segment(commands: Any) -> Command:
    """The command ``segment`` and its arguments."""
    from stseg3d.bundle_folders import bundle_names

    command = commands.add_parser("segment", help="label maps for images: files, folders or DICOM series in, NIfTI + JSON out")
    inputs = "image file, DICOM series, folder of either at any depth, or list (.csv with a column image, .json such as a dataset.json)"
    command.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help=inputs)
    command.add_argument("--part", choices=PARTS, help="of a dataset.json (default: all parts)")
    named = f" ({', '.join(bundle_names())})" if bundle_names() else ""
    command.add_argument("--bundle", required=True, metavar="NAME_OR_DIR", help=f"folder of a bundle, or an embedded one{named}")
    command.add_argument("-o", dest="output_dir", required=True, type=Path, metavar="OUT", help="folder for <case>_seg.nii.gz and .json")
    command.add_argument("--output", choices=["labels", "instances", "probabilities"], help="what to write (default: what the bundle says)")
    command.add_argument("--mask", type=Path, help="label map whose objects are looked at closely, instead of a rough look; one case only")
    command.add_argument(
        "--boxes", type=Path, metavar="FILE", help="boxes to look at closely (JSON or CSV), instead of a rough look; one case only"
    )
    command.add_argument("--series", metavar="UID", help="which DICOM series of a folder with several: UID, its beginning, or description")
    command.add_argument("--rough-only", action="store_true", help="stop after the rough look: the baseline of what the second look gains")
    command.add_argument("--keep-rough", action="store_true", help="write <case>_rough.nii.gz, too, for `stseg3d report` to draw")
    precise = "bfloat16 is faster where the processor has it, as auto finds out, and may change some voxels"
    command.add_argument(
        "--precision", choices=["auto", "float32", "bfloat16"], help=f"of the networks (default: what the bundle says); {precise}"
    )
    runs = "what computes the networks (default: what the bundle says); openvino is quicker on a CPU for more than a few cases"
    command.add_argument("--runtime", choices=["torch", "openvino"], help=f"{runs}: pip install 'stseg3d[openvino]'")
    command.add_argument("--batch-size", type=positive, metavar="N", help="crops that go through the network at once")
    command.add_argument("--overwrite", action="store_true", help="replace outputs that are there already and not what would be written")
    command.add_argument(
        "--jobs", type=positive, metavar="N", help="worker processes, which share the threads (default: none but this one)"
    )
    limit = "for each case, such as 90 or 10min; a worker process that takes longer is killed"
    command.add_argument("--time-limit", type=_time_limit, metavar="SECONDS", help=limit)
    ray = "work on a Ray cluster: local starts one on this machine; auto or HOST:PORT is one that this machine is a node of"
    command.add_argument("--ray", metavar="ADDRESS", help=f"{ray}; --jobs limits the workers, and --threads (1) are those of each")
    command.add_argument("--ray-gpus", type=float, metavar="SHARE", help="of a GPU for each worker with --ray, such as 0.25 (default: 1)")
    add_trust(command)
    add_machine(command)
    return command, _segment


def _time_limit(text: str) -> float:
    return seconds(text if text[-1:].isalpha() else f"{text}s")


def _segment(args: argparse.Namespace) -> int:
    from stseg3d.bundle_folders import find_bundle  # before torch: the first scan is read meanwhile

    bundle = find_bundle(args.bundle)
    cases, bad_inputs = _cases(args, _channels(bundle))
    if not cases:
        return BAD
    result = _run(args, bundle, cases, _ahead(args, cases[0]))
    if not bad_inputs and not result.failed:
        return DONE
    nothing_done = not result.done and not result.skipped
    return BAD if nothing_done and all(outcome.bad_input for outcome in result.failed) else FAILED


def _channels(bundle: Path) -> int:
    """Number of files that form one case, by the plan: 1 for pictures, and without a plan."""
    from stseg3d.bundle_folders import PLAN
    from stseg3d.machine.json_files import read_json  # a Plan would take as long as all else until the first scan is read

    path = bundle / PLAN
    content = read_json(path.read_bytes(), str(path)) if path.is_file() else None
    image = content.get("image") if isinstance(content, dict) else None
    channels = image.get("channels") if isinstance(image, dict) and not image.get("colour") else None
    return channels if isinstance(channels, int) else 1  # another type is refused with the plan, before any case is begun


def _cases(args: argparse.Namespace, channels: int) -> tuple[list[Case], int]:
    """Cases of the inputs, and the number of inputs that cannot be listed, whose errors are printed."""
    from stseg3d.volumes import list_cases

    errors: list[Exception] = []
    cases = list_cases(args.inputs, leave_out=args.output_dir, on_error=errors.append, channels=channels, part=args.part)
    for error in errors:
        fail(error, args)
    bad = len(errors)
    if (args.mask or args.boxes) and len(cases) + bad > 1:
        msg = f"--mask and --boxes are for one case, got {len(cases) + bad}"
        raise ValueError(msg)
    return cases, bad


def _ahead(args: argparse.Namespace, first: Case) -> CaseAhead | None:
    """The first case, read while torch and MONAI are loaded, if this process is to work on it."""
    from stseg3d.results import OutcomeLog
    from stseg3d.volumes import output_name
    from stseg3d.volumes.ahead import begin_reading

    elsewhere = args.ray or args.jobs is not None or args.time_limit is not None
    if elsewhere or first.fault or args.series:
        return None
    begun_before = (args.output_dir / output_name(first.id)).exists() or OutcomeLog(args.output_dir).names(first.id)
    return None if begun_before else begin_reading(first)


def _run(args: argparse.Namespace, bundle: Path, cases: list[Case], ahead: CaseAhead | None) -> BatchResult:
    """Segment the cases, and report each outcome at once."""
    with loading():
        from stseg3d.batch import run_batch

    request, runner = _workers(args, bundle, len(cases), ahead)
    with progress(range(len(cases)), "cases") as bar:

        def tell(outcome: CaseOutcome) -> None:
            bar.update()
            _tell(outcome, args)

        result = run_batch(cases, request, runner, overwrite=args.overwrite, on_todo=bar.reset, on_outcome=tell)
    if result.skipped:
        say(f"stseg3d: {result.skipped} of {len(cases)} cases were done before and are skipped")
    return result


def _workers(args: argparse.Namespace, bundle: Path, cases: int, ahead: CaseAhead | None) -> tuple[Request, Runner]:
    """Request for the cases, and the runner that works on them."""
    from stseg3d.batch import InProcess, Processes, RayCluster

    if args.ray_gpus is not None and not args.ray:
        msg = f"--ray-gpus is for workers of --ray, got {args.ray_gpus:g} without it"
        raise ValueError(msg)
    jobs = min(args.jobs or 1, cases)
    if args.ray:
        request = _request(args, bundle, args.threads)
        room = max(cores() // (args.threads or 1), 1) if args.ray == "local" else cases
        most = min(args.jobs or room, cases)
        return request, RayCluster(request, args.ray, jobs=most, gpus=args.ray_gpus, time_limit_s=args.time_limit)
    threads = args.threads or (cores() if jobs > 1 else None)
    request = _request(args, bundle, threads and max(threads // jobs, 1))
    if args.jobs is not None or args.time_limit is not None:
        return request, Processes(request, jobs, time_limit_s=args.time_limit)
    return request, InProcess(request, ahead=ahead)


def _request(args: argparse.Namespace, bundle: Path, threads: int | None) -> Request:
    from stseg3d.inference import Request

    names = ("device", "output", "precision", "runtime", "batch_size", "rough_only", "mask", "boxes", "keep_rough", "series", "trust")
    return Request(bundle, args.output_dir, threads=threads, **{name: getattr(args, name) for name in names})


def _tell(outcome: CaseOutcome, args: argparse.Namespace) -> None:
    """Print the output's path, or why there is none."""
    if outcome.state == "done" and outcome.output:
        print(args.output_dir / outcome.output.path, flush=True)
    elif outcome.state == "failed":
        name = Path(outcome.input.path).name if outcome.input else ""
        text = sentence(outcome.reason if name and name in outcome.reason else f"{outcome.case}: {outcome.reason}")
        say(f"stseg3d: error: {text if outcome.bad_input else f'{outcome.error}: {text}'}")
        if args.traceback and outcome.traceback:
            say(outcome.traceback.rstrip())
