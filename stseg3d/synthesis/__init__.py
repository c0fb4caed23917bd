"""Synthetic CT: phantoms, whose anatomy is drawn at random, and scans of label maps, whose anatomy is a patient's."""

from stseg3d.synthesis.phantoms import ct_phantom
from stseg3d.synthesis.transforms import OpenAnatomyd, RandSyntheticCTd, anatomy_cases

__all__ = ["OpenAnatomyd", "RandSyntheticCTd", "anatomy_cases", "ct_phantom"]
