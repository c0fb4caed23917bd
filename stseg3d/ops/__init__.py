"""Voxels: pure functions on arrays, from resampling to fusion."""

from stseg3d.ops.boxes import Proposal, ProposedBox, propose_boxes
from stseg3d.ops.coverage import box_coverage
from stseg3d.ops.fuse import Canvas
from stseg3d.ops.policy import BoxPolicy, FinePolicy

__all__ = ["BoxPolicy", "Canvas", "FinePolicy", "Proposal", "ProposedBox", "box_coverage", "propose_boxes"]
