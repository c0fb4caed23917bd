"""Synthetic CT: phantoms, whose anatomy is drawn at random, and scans of label maps, whose anatomy is a patient's."""

from stseg3d.synthesis.ct import SyntheticCT
from stseg3d.synthesis.deformation import deformed
from stseg3d.synthesis.label_maps import Anatomy, build_anatomy
from stseg3d.synthesis.phantoms import ct_phantom
from stseg3d.synthesis.scanner import Scan, draw_scan
from stseg3d.synthesis.transforms import OpenAnatomyd, RandSyntheticCTd, anatomy_cases

__all__ = [
    "Anatomy",
    "OpenAnatomyd",
    "RandSyntheticCTd",
    "Scan",
    "SyntheticCT",
    "anatomy_cases",
    "build_anatomy",
    "ct_phantom",
    "deformed",
    "draw_scan",
]
