"""Training: samples as MONAI transforms, augmentation, and the runs of a bundle's training configs."""

from stseg3d.training.augmentation import augmentation
from stseg3d.training.averaging import WeightAverage
from stseg3d.training.crops import FineBoxesd, RandFineCropsd
from stseg3d.training.engine import ClipGradients, EpochProgress, KeepBest, PrecisionInferer, ResumeHandler, TimeBudget, shared_handler
from stseg3d.training.ensemble import ensemble_bundles
from stseg3d.training.folds import load_predictions, training_cases, with_ids
from stseg3d.training.history import History
from stseg3d.training.processes import distribute, join_processes, leave_processes, own_device, rank
from stseg3d.training.region_loss import RegionLoss
from stseg3d.training.rough_channel import AppendRoughd
from stseg3d.training.samples import LoadLabeld, OpenCased, RoughSampled
from stseg3d.training.sliding_window import RandPatchesd, SlidingWindow, WholeCased
from stseg3d.training.stages import assemble
from stseg3d.training.starting import StartFromRough
from stseg3d.training.supervision import FullResolutiond, HeadsLoss

__all__ = [
    "AppendRoughd",
    "ClipGradients",
    "EpochProgress",
    "FineBoxesd",
    "FullResolutiond",
    "HeadsLoss",
    "History",
    "KeepBest",
    "LoadLabeld",
    "OpenCased",
    "PrecisionInferer",
    "RandFineCropsd",
    "RandPatchesd",
    "RegionLoss",
    "ResumeHandler",
    "RoughSampled",
    "SlidingWindow",
    "StartFromRough",
    "TimeBudget",
    "WeightAverage",
    "WholeCased",
    "assemble",
    "augmentation",
    "distribute",
    "ensemble_bundles",
    "join_processes",
    "leave_processes",
    "load_predictions",
    "own_device",
    "rank",
    "shared_handler",
    "training_cases",
    "with_ids",
]
