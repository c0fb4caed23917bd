"""Segment-then-Segment in 3-D on MONAI: a rough look at the whole volume, a close look at each object."""

from stseg3d.moved import install

__version__ = "0.1.0"

install()
