"""Settings of a bundle chosen on data, with their guarantees."""

from stseg3d.planning.calibration import Calibration
from stseg3d.planning.measure import Calibrator, labelled_cases
from stseg3d.planning.settings import write_policy

__all__ = ["Calibration", "Calibrator", "labelled_cases", "write_policy"]
