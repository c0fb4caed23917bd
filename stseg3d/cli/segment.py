"""``stseg3d segment``: label maps for images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stseg3d.cli.arguments import Command, add_machine, positive, set_threads
from stseg3d.cli.terminal import BAD, BAD_INPUT, DONE, FAILED, fail, progress

if TYPE_CHECKING:
    from stseg3d.volumes import Case


def add_segment(commands: Any) -> Command:
    """The command ``segment`` and its arguments."""
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
    command.add_argument("--batch-size", type=positive, metavar="N", help="crops that go through the network at once")
    command.add_argument("--overwrite", action="store_true", help="replace outputs that are there already")
    add_machine(command)
    return command, _segment


def _segment(args: argparse.Namespace) -> int:
    from stseg3d.bundle import find_bundle

    bundle = find_bundle(args.bundle)
    cases, errors = _cases(args)
    failed: list[Exception] = []
    if cases:
        set_threads(args.threads)
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
        for case in progress(cases, "cases"):
            try:
                outcome = segmenter.segment(case, args.output_dir, mask=args.mask, boxes=args.boxes)
            except Exception as error:  # a failing case never stops the batch
                fail(error, args, case)
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
            fail(error, args)
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
            fail(errors[-1], args)
        else:
            todo.append(case)
    return todo, errors
