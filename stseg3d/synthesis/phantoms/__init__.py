"""CT phantoms made in code alone: a body of soft shapes whose aorta is known voxel by voxel.

``python -m stseg3d.synthesis.phantoms OUT --training 20 --validation 4`` writes a data set.
"""

from stseg3d.synthesis.phantoms.dataset import write_dataset
from stseg3d.synthesis.phantoms.phantom import ct_phantom

__all__ = ["ct_phantom", "write_dataset"]
