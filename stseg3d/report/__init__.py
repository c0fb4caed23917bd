"""Pictures of segmented cases, and one HTML page for all of them."""

from stseg3d.report.picture import picture_of_case
from stseg3d.report.write import VOLUMES, write_report

__all__ = ["VOLUMES", "picture_of_case", "write_report"]
