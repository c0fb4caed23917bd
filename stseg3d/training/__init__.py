"""Learn: samples as MONAI transforms, augmentation, phantoms, and the thin caller of a bundle's training configs."""

from stseg3d.training.augmentation import augmentation
from stseg3d.training.engine import ClipGradients, EpochProgress, KeepBest, PrecisionInferer, ResumeHandler, TimeBudget
from stseg3d.training.samples import FineBoxesd, OpenCased, RandFineCropsd, RoughSampled
from stseg3d.training.stages import assemble

__all__ = [
    "ClipGradients",
    "EpochProgress",
    "FineBoxesd",
    "KeepBest",
    "OpenCased",
    "PrecisionInferer",
    "RandFineCropsd",
    "ResumeHandler",
    "RoughSampled",
    "TimeBudget",
    "assemble",
    "augmentation",
]
