"""CT phantoms made in code alone: a body of soft shapes whose aorta is known voxel by voxel.

``python -m stseg3d.synthesis.phantoms OUT --training 20 --validation 4`` writes a data set.
"""

from stseg3d.synthesis.phantoms.body import paint_patient, paint_table
from stseg3d.synthesis.phantoms.dataset import write_dataset
from stseg3d.synthesis.phantoms.patient import Patient, cage, draw_patient
from stseg3d.synthesis.phantoms.phantom import ct_phantom
from stseg3d.synthesis.phantoms.shapes import Painter
from stseg3d.synthesis.scanner import AIR_HU

__all__ = ["AIR_HU", "Painter", "Patient", "cage", "ct_phantom", "draw_patient", "paint_patient", "paint_table", "write_dataset"]
