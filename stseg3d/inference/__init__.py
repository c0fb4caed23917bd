"""Inference: from a volume to boxes to labels on the volume's own grid."""

from stseg3d.compute import Stage
from stseg3d.inference.inferer import SegmentThenSegmentInferer
from stseg3d.inference.propose import BoxProposer, MaskProposer, NetworkProposer, WholeProposer
from stseg3d.inference.request import Request
from stseg3d.inference.segmentation import Segmentation
from stseg3d.ops import FinePolicy

__all__ = [
    "BoxProposer",
    "FinePolicy",
    "MaskProposer",
    "NetworkProposer",
    "Request",
    "SegmentThenSegmentInferer",
    "Segmentation",
    "Stage",
    "WholeProposer",
]
