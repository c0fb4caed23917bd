"""Settings of a bundle chosen on data, with their guarantees."""

from stseg3d.planning.calibrate import Choice, cases_needed, choose, monotonised, risk_bounds
from stseg3d.planning.calibration import Calibration
from stseg3d.planning.measure import Calibrator, Measured, labelled_cases, policy_chain
from stseg3d.planning.settings import write_policy

__all__ = [
    "Calibration",
    "Calibrator",
    "Choice",
    "Measured",
    "cases_needed",
    "choose",
    "labelled_cases",
    "monotonised",
    "policy_chain",
    "risk_bounds",
    "write_policy",
]
