"""Selection: candidates trained on folds of the data, compared by cross-validation, and the winner written as one bundle."""

from stseg3d.selection.select import Selection, select_bundle
from stseg3d.selection.train import train_folds

__all__ = ["Selection", "select_bundle", "train_folds"]
