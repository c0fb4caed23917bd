"""A random human trunk, drawn with soft shapes: what the CT phantoms show."""

from stseg3d.training.anatomy.body import paint_patient, paint_table
from stseg3d.training.anatomy.painting import AIR_HU, Painter
from stseg3d.training.anatomy.patient import Patient, cage, draw_patient

__all__ = ["AIR_HU", "Painter", "Patient", "cage", "draw_patient", "paint_patient", "paint_table"]
