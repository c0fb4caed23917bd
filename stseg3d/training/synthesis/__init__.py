"""CT from label maps: tissues get intensities, bodies get shapes, scans get noise."""

from stseg3d.training.synthesis.anatomy import Anatomy, build_anatomy
from stseg3d.training.synthesis.ct import SyntheticCT
from stseg3d.training.synthesis.deformation import deformed
from stseg3d.training.synthesis.scan import Scan, draw_scan
from stseg3d.training.synthesis.transforms import OpenAnatomyd, RandSyntheticCTd, anatomy_cases

__all__ = ["Anatomy", "OpenAnatomyd", "RandSyntheticCTd", "Scan", "SyntheticCT", "anatomy_cases", "build_anatomy", "deformed", "draw_scan"]
