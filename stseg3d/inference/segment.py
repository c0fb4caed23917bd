"""From file to file: for each case, labels on its exact grid and a JSON that says how they came about."""

from __future__ import annotations

import copy
import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from stseg3d.bundle import find_bundle, load_network, read_metadata, weights_sha256
from stseg3d.compute import device_of, ensure_runtime, precision_on
from stseg3d.geometry import Box
from stseg3d.inference.boxfile import read_boxes
from stseg3d.inference.inferer import SegmentThenSegmentInferer
from stseg3d.inference.propose import BoxProposer, MaskProposer, Proposer
from stseg3d.inference.provenance import describe_segmentation, versions
from stseg3d.inference.request import Request
from stseg3d.inference.segmentation import Segmentation, Stopwatch
from stseg3d.machine.files import atomic_write
from stseg3d.machine.memory import peak_memory_bytes
from stseg3d.machine.threads import set_threads
from stseg3d.networks import RoughFineNet
from stseg3d.volumes import (
    CanonicalVolume,
    Case,
    FileVolume,
    StackedVolume,
    Volume,
    case_id,
    ensure_writable,
    open_label,
    open_volume,
    output_name,
    write_labels,
    write_probabilities,
)


class Segmenter:
    """A bundle, loaded once, ready for many cases.

    Args:
        bundle: Folder, or the name of an embedded bundle; or a whole request.
        options: Further fields of :class:`stseg3d.inference.Request`.

    Raises:
        FileNotFoundError: If there is no such bundle, or it has no weights.
        ModuleNotFoundError: If the runtime is not installed.
        UntrustedError: If the bundle is more than data, and ``trust`` is off.
        ValueError: If the weights do not fit, an option is unknown, or the bundle's inferer is not a two-stage one.

    Example:
        >>> Segmenter("aorta_ct_segmentation", device="cpu").segment("scan.nii.gz", "out").output  # doctest: +SKIP
        PosixPath('out/scan_seg.nii.gz')
    """

    def __init__(self, bundle: Request | Path | str, **options: Any) -> None:
        request = replace(bundle, **options) if isinstance(bundle, Request) else Request(find_bundle(bundle), **options)
        set_threads(request.threads)
        network, parser = load_network(request.bundle, request.device, overrides=request.entries, trust=request.trust)
        inferer = parser.get_parsed_content("inferer")
        if not isinstance(inferer, SegmentThenSegmentInferer):
            msg = f"bundle {request.bundle}: inferer must be a SegmentThenSegmentInferer, got {type(inferer).__name__}"
            raise ValueError(msg)
        self.request, self.inferer = request, inferer
        self.network = cast(RoughFineNet, network)  # or anything else with .rough and .fine
        precision = precision_on(device_of(network), inferer.execution.precision)
        ensure_runtime(inferer.execution.runtime, device_of(network), precision)
        inferer.execution = replace(inferer.execution, precision=precision, progress=True)
        self.about = {
            "name": request.bundle.name,
            "path": str(request.bundle),
            "version": str(read_metadata(request.bundle).get("version", "")),
            "weights_sha256": weights_sha256(request.bundle),
            "overrides": request.entries,
        }

    def segment(
        self,
        source: Case | Path | str,
        output_dir: Path | str,
        *,
        mask: Path | None = None,
        boxes: Path | None = None,
        keep_rough: bool = False,
        series: str | None = None,
    ) -> SegmentedCase:
        """Segment one case and write ``<case>_seg.nii.gz`` and ``<case>_seg.json``.

        Args:
            source: The image.
            output_dir: Folder for both files; created if missing.
            mask: Mask whose components become boxes; by default, as with the next three, that of the request.
            boxes: File of boxes to use.
            keep_rough: Also write the rough map.
            series: DICOM series to take from a folder with several.

        Returns:
            The outputs: complete files, or none if an error is raised.

        Raises:
            OSError: If a file cannot be read or written.
            ValueError: If the image, the mask or the boxes break a rule.
        """
        given: dict[str, Any] = {"mask": mask, "boxes": boxes, "keep_rough": keep_rough, "series": series}
        request = replace(self.request, output_dir=Path(output_dir), **{name: value for name, value in given.items() if value})
        case = source if isinstance(source, Case) else Case(case_id(source), Path(source))
        work = CaseWork(self, case, request)
        work.open()
        work.find()
        return work.write()


@dataclass(frozen=True)
class SegmentedCase:
    """Outputs of one case."""

    case_id: str  # name of the case
    output: Path  # file of its labels
    provenance: dict[str, Any]  # content of the JSON beside it
    boxes: list[Box]  # boxes that were used, in voxels of the file


class CaseWork:
    """A case on its way from file to file: :meth:`open`, :meth:`find` and :meth:`write`, once each, in this order, in any thread.

    The steps of several cases may overlap, as long as no two cases of a segmenter are in :meth:`find`.

    Args:
        segmenter: The bundle.
        case: The case.
        request: Its own request; by default that of the segmenter.

    Attributes:
        volume: Its image, once open; voxels are read when first needed, and dropped once labels are found.
        found: Its segmentation, once found.
        clock: Times of its steps.
    """

    def __init__(self, segmenter: Segmenter, case: Case, request: Request | None = None) -> None:
        self.segmenter, self.case, self.request = segmenter, case, request or segmenter.request
        self.volume: Volume | None = None
        self.found: Segmentation | None = None
        self.clock = Stopwatch()

    @property
    def held_bytes(self) -> int:
        """Memory of the labels, or before they are found of all voxels; of a mapped file only the voxels of a box are in memory."""
        if self.found:
            return self.found.labels.nbytes + (0 if self.found.probabilities is None else self.found.probabilities.nbytes)
        volume = self.volume
        return volume.grid.box.voxels * volume.channels * volume.dtype.itemsize if volume else 0

    def open(self, volume: Volume | None = None) -> None:
        """Open the image, unless it has been opened already with ``channels_last``, after a check that its output can be written.

        Raises:
            OSError: If the image cannot be read, or the folder cannot be written.
            ValueError: If the image breaks a rule that its header shows.
        """
        ensure_writable(self.request.output_dir)
        with self.clock("open"):
            self.volume = open_volume(self.case.image, channels_last=True, series=self.request.series) if volume is None else volume

    def read_ahead(self) -> None:
        """Read the voxels of a compressed file or of a series before they are needed; the time counts as that of opening.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is broken.
        """
        assert self.volume is not None
        with self.clock("open"):
            ndim = self.volume.grid.ndim
            self.volume.read(Box((0,) * ndim, (1,) * ndim))  # the first read loads them all

    def find(self) -> None:
        """Find the labels; only this step runs networks.

        Raises:
            OSError: If the image, the mask or the boxes cannot be read.
            ValueError: If they break a rule.
        """
        volume, inferer, network = self.volume, self.segmenter.inferer, self.segmenter.network
        assert volume is not None
        if self.request.rough_only:
            clock = Stopwatch()
            with clock("rough"):
                labels = inferer.rough_only(volume, network)
            self.found = Segmentation(labels, seconds=clock.seconds, peak_bytes=clock.peak_bytes)
        else:
            self.found = inferer.segment(volume, network, self._proposer(volume))
        if isinstance(volume, FileVolume | StackedVolume):
            self.volume = copy.copy(volume)  # without the voxels, as it would be in another process

    def write(self) -> SegmentedCase:
        """Write all files of the case, complete, or none if an error is raised.

        Raises:
            OSError: If a file cannot be written.
        """
        found, volume, folder = self.found, self.volume, self.request.output_dir
        assert found is not None
        assert volume is not None
        folder.mkdir(parents=True, exist_ok=True)  # it may have been removed meanwhile
        output = folder / output_name(self.case.id)
        rough = folder / output_name(self.case.id, "rough") if self.request.keep_rough and found.rough else None
        with ExitStack() as files:  # all are renamed at the end, or none
            image, notes = (files.enter_context(atomic_write(path)) for path in (output, folder / f"{self.case.id}_seg.json"))
            with self.clock("write"):
                if found.probabilities is None:
                    write_labels(found.labels, image, volume)
                else:
                    write_probabilities(found.probabilities, image, volume)
                if rough and found.rough:
                    levels = np.rint(found.rough.array[0].clip(0, 1) * 255).astype(np.uint8)
                    write_labels(levels, files.enter_context(atomic_write(rough)), found.rough)
            provenance = self._provenance(found, volume, output)
            provenance |= {"rough": {"path": str(rough), "threshold": self.segmenter.inferer.policy.threshold}} if rough else {}
            notes.write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8", newline="\n")
        return SegmentedCase(self.case.id, output, provenance, [b.box for b in found.boxes])

    def _proposer(self, volume: Volume) -> Proposer | None:
        """The proposer of a given mask or boxes: on the canonical view, while files refer to the image as stored."""
        inferer, request = self.segmenter.inferer, self.request
        if request.mask:
            # Both along the image's axes, as the mask may be stored along others.
            turned = CanonicalVolume(open_label(request.mask, volume.grid), inferer.image.axcodes or volume.grid.orientation)
            return MaskProposer(turned, inferer.policy, inferer.fine.size)
        if request.boxes:
            view = inferer.view(volume)
            given = [view.view_box(b) for b in read_boxes(request.boxes, volume.grid)]
            return BoxProposer(given, inferer.policy, inferer.fine.size)
        return None

    def _provenance(self, found: Segmentation, volume: Volume, output: Path) -> dict[str, Any]:
        request, segmenter, execution = self.request, self.segmenter, self.segmenter.inferer.execution
        given = f"mask {request.mask}" if request.mask else f"boxes {request.boxes}" if request.boxes else "rough network"
        seconds = self.clock.seconds | found.seconds
        peaks = self.clock.peak_bytes | found.peak_bytes
        return {
            "case": self.case.id,
            "input": str(self.case.images[0]),
            **({"channels": [str(path) for path in self.case.images]} if len(self.case.images) > 1 else {}),
            "output": str(output),
            "kind": "labels" if request.rough_only else segmenter.inferer.output.kind,
            "boxes_from": "rough network alone" if request.rough_only else given,
            **describe_segmentation(found, volume),
            "peak_memory_bytes": max(*peaks.values(), peak_memory_bytes()),  # another case may have begun anew with that of the process
            "bundle": segmenter.about,
            "device": str(device_of(segmenter.network)),
            "precision": execution.precision,
            "runtime": execution.runtime,
            "versions": versions(execution.runtime),
            "seconds": seconds | {"total": round(sum(seconds.values()), 4)},
            "stage_peak_bytes": peaks,
        }
