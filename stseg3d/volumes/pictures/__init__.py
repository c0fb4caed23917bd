"""Pictures as volumes: PNG, JPEG, and TIFF with its pages, channels and scales."""

from stseg3d.volumes.pictures.opening import PICTURE_SUFFIXES, open_picture

__all__ = ["PICTURE_SUFFIXES", "open_picture"]
