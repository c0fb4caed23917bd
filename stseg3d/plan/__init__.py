"""Plan: what a task is, as one value; and the MONAI configs that are rendered from it."""

from stseg3d.plan.values import Execution, ImageView, NetworkInput, Output

__all__ = ["Execution", "ImageView", "NetworkInput", "Output"]
