"""Networks: the composite of a rough and a fine network, adapters, and a check of sizes."""

from stseg3d.networks.composite import RoughFineNet
from stseg3d.networks.depth import SqueezeDepth
from stseg3d.networks.ensemble import MeanEnsemble
from stseg3d.networks.size_check import check_same_size, needed_multiple

__all__ = ["MeanEnsemble", "RoughFineNet", "SqueezeDepth", "check_same_size", "needed_multiple"]
