"""Plan: a task as one value, and the MONAI configs that are rendered from it."""

from stseg3d.plan.entries import set_entries, task_entries
from stseg3d.plan.json_values import Both, Component, json_text
from stseg3d.plan.plan import STAGES, Plan, StagePlan
from stseg3d.plan.render import code_in_overrides, is_intact, render, with_formats
from stseg3d.plan.training import Training
from stseg3d.plan.values import Execution, ImageView, NetworkInput, Output

__all__ = [
    "STAGES",
    "Both",
    "Component",
    "Execution",
    "ImageView",
    "NetworkInput",
    "Output",
    "Plan",
    "StagePlan",
    "Training",
    "code_in_overrides",
    "is_intact",
    "json_text",
    "render",
    "set_entries",
    "task_entries",
    "with_formats",
]
