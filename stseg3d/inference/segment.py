"""File to file: one case in, labels on its exact grid and a JSON that says how they came about."""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np

from stseg3d.bundle import find_bundle, load_network, read_metadata, weights_sha256
from stseg3d.geometry import Box
from stseg3d.inference.boxfile import describe_box, read_boxes
from stseg3d.inference.cases import FoundCase, OpenedCase, Outcome
from stseg3d.inference.inferer import OUTPUTS, Segmentation, SegmentThenSegmentInferer, Stopwatch
from stseg3d.inference.propose import BoxProposer, MaskProposer, Proposer
from stseg3d.inference.runtimes import OPENVINO, ensure_runtime
from stseg3d.inference.stages import precision_on
from stseg3d.machine.files import atomic_write
from stseg3d.machine.memory import peak_memory_bytes
from stseg3d.networks import RoughFineNet
from stseg3d.ops.boxes import ProposedBox
from stseg3d.volumes import (
    CanonicalVolume,
    Case,
    FileVolume,
    Volume,
    case_id,
    ensure_writable,
    open_label,
    open_volume,
    output_name,
    write_labels,
    write_probabilities,
)

PACKAGES = ("stseg3d", "torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK")


class Segmenter:
    """A bundle, loaded once, ready for many cases.

    :meth:`segment` is :meth:`open`, :meth:`find` and :meth:`write`, one after the other. Those of several cases may overlap, each in a
    thread of its own, as long as no two cases are in :meth:`find`.

    Loading a bundle executes what its configs name, once they have been checked; with ``trust``, unchecked.

    Args:
        bundle: Folder, or the name of an embedded bundle.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        output: ``labels``, ``instances`` or ``probabilities``; by default what the bundle says.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``; by default what the bundle says.
        runtime: ``torch`` or ``openvino``, which is quicker on a CPU once it has started; by default what the bundle says.
        overrides: Config entries to set first, by id, such as ``{"displayable_configs#batch_size": 2}``.
        rough_only: Run the rough network alone and upsample: the baseline that two stages must beat.
        trust: Run whatever the configs name, see :func:`stseg3d.bundle.ensure_trusted_bundle`.

    Raises:
        FileNotFoundError: If there is no such bundle, or it has no weights.
        ModuleNotFoundError: If the runtime is not installed.
        UntrustedError: If the configs call something outside the allow-list, and ``trust`` was not given.
        ValueError: If the weights do not fit, an option is unknown, or the bundle's inferer is not a two-stage one.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        device: str = "auto",
        output: str | None = None,
        precision: str | None = None,
        runtime: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        rough_only: bool = False,
        trust: bool = False,
    ) -> None:
        self.bundle = find_bundle(bundle)
        network, parser = load_network(self.bundle, device, overrides=overrides, trust=trust)
        self.network = cast(RoughFineNet, network)  # or anything else with .rough and .fine
        inferer = parser.get_parsed_content("inferer")
        if not isinstance(inferer, SegmentThenSegmentInferer):
            msg = f"bundle {self.bundle}: inferer must be a SegmentThenSegmentInferer, got {type(inferer).__name__}"
            raise ValueError(msg)
        if output is not None and output not in OUTPUTS:
            msg = f"output must be one of {OUTPUTS}, got {output!r}"
            raise ValueError(msg)
        if rough_only and output not in (None, "labels"):
            msg = f"rough_only gives labels, got output={output!r} too"
            raise ValueError(msg)
        self.inferer = inferer
        self.inferer.output = output or inferer.output
        self.inferer.precision = precision_on(next(self.network.parameters()).device, precision or inferer.precision)
        self.inferer.runtime = runtime or inferer.runtime
        ensure_runtime(self.inferer.runtime, next(self.network.parameters()).device, self.inferer.precision)
        self.inferer.progress = True
        self.rough_only = rough_only
        self.about = {
            "name": self.bundle.name,
            "path": str(self.bundle),
            "version": str(read_metadata(self.bundle).get("version", "")),
            "weights_sha256": weights_sha256(self.bundle),
            "overrides": dict(overrides or {}),
        }

    def segment(
        self,
        source: Case | Path | str,
        output_dir: Path,
        *,
        mask: Path | None = None,
        boxes: Path | None = None,
        keep_rough: bool = False,
        series: str | None = None,
    ) -> Outcome:
        """Segment one case and write ``<case>_seg.nii.gz`` and ``<case>_seg.json``.

        Args:
            source: The image.
            output_dir: Folder for both files; made if need be.
            mask: Look where this mask is, instead of where the rough network says.
            boxes: Look into the boxes of this file (see :func:`stseg3d.inference.boxfile.read_boxes`).
            keep_rough: Write ``<case>_rough.nii.gz``, too: the rough stage's foreground probability times 255, uint8, on the rough grid;
                none where boxes were given or the rough network ran alone.
            series: Which DICOM series of a folder with several (see :func:`stseg3d.volumes.open_volume`).

        Returns:
            What was done; the files are whole, or an error is raised and none is there.

        Raises:
            OSError: If a file cannot be read or written.
            ValueError: If the image, the mask or the boxes break a rule.
        """
        opened = self.open(source, output_dir, mask=mask, boxes=boxes, keep_rough=keep_rough, series=series)
        found = self.find(opened)
        del opened  # and the voxels with it
        return self.write(found)

    def open(
        self,
        source: Case | Path | str,
        output_dir: Path,
        *,
        mask: Path | None = None,
        boxes: Path | None = None,
        keep_rough: bool = False,
        series: str | None = None,
        volume: Volume | None = None,
    ) -> OpenedCase:
        """Open the image of a case, once its output could be written.

        Args:
            source: As for :meth:`segment`, and so are all others.
            output_dir: See there.
            mask: See there.
            boxes: See there.
            keep_rough: See there.
            series: See there.
            volume: The image, if it is open already, as :func:`stseg3d.volumes.open_volume` gives it with ``channels_last``.

        Raises:
            OSError: If the image cannot be read or the folder not be written.
            ValueError: If the image breaks a rule that its header shows.
        """
        case = source if isinstance(source, Case) else Case(case_id(source), Path(source))
        ensure_writable(output_dir)
        clock = Stopwatch()
        with clock("open"):
            volume = open_volume(case.image, channels_last=True, series=series) if volume is None else volume
        return OpenedCase(case, volume, output_dir, mask, boxes, keep_rough, clock)

    def find(self, opened: OpenedCase) -> FoundCase:
        """Labels of an open case; the one step in which networks run.

        Raises:
            OSError: If the image, the mask or the boxes cannot be read.
            ValueError: If they break a rule.
        """
        found, how = self._found(opened.volume, opened.mask, opened.boxes)
        volume = opened.volume
        # A copy is without the voxels, as it would be in another process.
        return FoundCase(replace(opened, volume=copy.copy(volume) if isinstance(volume, FileVolume) else volume), found, how)

    def write(self, made: FoundCase) -> Outcome:
        """Write the files of a case: all are whole, or an error is raised and none is there.

        Raises:
            OSError: If one cannot be written.
        """
        case, found, clock = made.opened.case, made.found, made.opened.clock
        output_dir, volume = made.opened.output_dir, made.opened.volume
        output_dir.mkdir(parents=True, exist_ok=True)  # somebody may have removed it meanwhile
        output = output_dir / output_name(case.id)
        rough = output_dir / output_name(case.id, "rough") if made.opened.keep_rough and found.rough else None
        with ExitStack() as files:  # all take their names at the end, or none does
            image, notes = (files.enter_context(atomic_write(path)) for path in (output, output_dir / f"{case.id}_seg.json"))
            with clock("write"):
                if found.probabilities is None:
                    write_labels(found.labels, image, volume)
                else:
                    write_probabilities(found.probabilities, image, volume)
                if rough and found.rough:
                    levels = np.rint(found.rough.array[0].clip(0, 1) * 255).astype(np.uint8)
                    write_labels(levels, files.enter_context(atomic_write(rough)), found.rough)
            seconds = clock.seconds | found.seconds
            seconds["total"] = round(sum(seconds.values()), 4)
            stages = {"seconds": seconds, "stage_peak_bytes": clock.peak_bytes | found.peak_bytes}
            provenance = self._provenance(made, output) | stages
            provenance |= {"rough": {"path": str(rough), "threshold": self.inferer.policy.threshold}} if rough else {}
            notes.write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
        return Outcome(case.id, output, provenance, [b.box for b in found.boxes])

    def _found(self, volume: Volume, mask: Path | None, boxes: Path | None) -> tuple[Segmentation, str]:
        if mask and boxes:
            msg = f"mask and boxes cannot both say where to look, got {mask} and {boxes}"
            raise ValueError(msg)
        if self.rough_only and (mask or boxes):
            msg = f"rough_only asks the rough network where to look, got {mask or boxes} too"
            raise ValueError(msg)
        if self.rough_only:
            clock = Stopwatch()
            with clock("rough"):
                labels = self.inferer.rough_only(volume, self.network)
            return Segmentation(labels, seconds=clock.seconds, peak_bytes=clock.peak_bytes), "rough network alone"
        how = f"mask {mask}" if mask else f"boxes {boxes}" if boxes else "rough network"
        return self.inferer.segment(volume, self.network, self._proposer(volume, mask, boxes)), how

    def _proposer(self, volume: Volume, mask: Path | None, boxes: Path | None) -> Proposer | None:
        """A proposer speaks of the canonical view, files speak of the image as it is stored."""
        view = self.inferer.view(volume)
        if mask:
            # The image's axes for both: the mask may be stored along others.
            turned = CanonicalVolume(open_label(mask, volume.grid), self.inferer.axcodes or volume.grid.orientation)
            return MaskProposer(turned, self.inferer.policy, self.inferer.fine.size)
        if boxes:
            given_boxes = [view.view_box(b) for b in read_boxes(boxes, volume.grid)]
            return BoxProposer(given_boxes, self.inferer.policy, self.inferer.fine.size)
        return None

    def _provenance(self, made: FoundCase, output: Path) -> dict[str, Any]:
        case, volume, found = made.opened.case, made.opened.volume, made.found
        packages = (*PACKAGES, OPENVINO) if self.inferer.runtime == OPENVINO else PACKAGES
        # Another case that begins meanwhile begins anew with the peak of the process.
        peaks = (*made.opened.clock.peak_bytes.values(), *found.peak_bytes.values(), peak_memory_bytes())
        return {
            "case": case.id,
            "input": str(case.image),
            "output": str(output),
            "kind": "labels" if self.rough_only else self.inferer.output,
            "boxes_from": made.how,
            "grid": {
                "shape": list(volume.grid.shape),
                "spacing_mm": [round(s, 6) for s in volume.grid.spacing_mm],
                "orientation": volume.grid.orientation,
                "dtype": str(volume.dtype),
            },
            **({"dicom": volume.about} if isinstance(volume, FileVolume) and volume.about else {}),
            "volume_ml": _volume_ml(found, volume),
            "boxes": [_describe(b, volume) for b in found.boxes],
            "dropped": [describe_box(d.box, volume.grid) | {"volume_mm3": d.volume_mm3, "why": d.why} for d in found.dropped],
            "counts": {k: int(v) for k, v in found.counts.items()},
            "warnings": found.warnings,
            "peak_memory_bytes": max(peaks),
            "bundle": self.about,
            "device": str(next(self.network.parameters()).device),
            "precision": self.inferer.precision,
            "runtime": self.inferer.runtime,
            "versions": {"python": platform.python_version()} | {p: _version(p) for p in packages},
        }


def _describe(box: ProposedBox, volume: Volume) -> dict[str, Any]:
    return describe_box(box.box, volume.grid) | {"components": sorted(box.components), "clipped": box.clipped, "tile": box.tile}


def _volume_ml(found: Segmentation, volume: Volume) -> dict[str, float]:
    """Volume of each label or instance, in ml."""
    where = reduce(Box.union, (b.box for b in found.boxes), found.boxes[0].box if found.boxes else volume.grid.box)  # no labels elsewhere
    labels = found.labels[where.slices]
    counts = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    for k in range(labels.shape[-1]):  # slice by slice: numpy counts in integers of 8 bytes a voxel
        plane = labels[..., k]
        if plane.max():  # looking takes a tenth of the time of counting
            counts += np.bincount(plane.ravel(order="K"), minlength=len(counts))
    return {str(k): round(float(n) * volume.grid.voxel_mm3 / 1000, 3) for k, n in enumerate(counts) if k and n}


@cache  # each answer is read from files
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
