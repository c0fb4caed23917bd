"""Threads: how many the libraries that read and compute may take."""

from __future__ import annotations

import os


def set_threads(threads: int | None) -> None:
    """Let torch, SimpleITK and itk of this process use so many threads.

    Args:
        threads: How many; None leaves it to them. SimpleITK and itk hear of it when they start.
    """
    if threads is None:
        return
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
