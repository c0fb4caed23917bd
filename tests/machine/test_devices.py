"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from stseg3d import bundle
from stseg3d.machine.devices import select_device


@pytest.mark.parametrize("name", ["cpux", "", "cuda:x"])
def test_a_device_must_mean_something(name: str) -> None:
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N"):
        select_device(name)


def test_a_device_must_be_there() -> None:
    assert select_device("cpu") == torch.device("cpu")
    assert select_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="'cuda:64' was asked for, but torch sees"):
        select_device("cuda:64")


def test_bundles_still_export_it() -> None:
    assert bundle.select_device is select_device
