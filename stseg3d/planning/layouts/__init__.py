"""Layouts: the cases that a user has, as the user keeps them, found by names alone and divided into parts by patient."""

from stseg3d.planning.layouts.find import find_data
from stseg3d.planning.layouts.found import DataFound, Entry, as_dataset_json
from stseg3d.planning.layouts.split import split, with_groups

__all__ = ["DataFound", "Entry", "as_dataset_json", "find_data", "split", "with_groups"]
