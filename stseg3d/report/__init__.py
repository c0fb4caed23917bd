"""Show: pictures of what was found."""

from stseg3d.report.picture import picture_of_case

__all__ = ["picture_of_case"]
