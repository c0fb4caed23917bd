"""Run by torchrun in test_multi_process.py: what each of two processes sees, saved by rank beside this run's argument."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet

from stseg3d.networks import RoughFineNet
from stseg3d.training import ResumeHandler
from stseg3d.training.processes import by_first, distribute, from_all, from_first, own_device, rank, together, undistributed


def made(seed: int) -> RoughFineNet:
    torch.manual_seed(seed)
    unet = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": (4, 8), "strides": (2,), "norm": "INSTANCE"}
    return RoughFineNet(UNet(**unet), UNet(**unet))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    image = torch.rand(4, 1, 8, 8, 8, generator=generator)
    return image, (image > 0.6).float()


def gradients(network: torch.nn.Module, image: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
    DiceCELoss(to_onehot_y=True, softmax=True)(network(image), label).backward()
    return {name: p.grad for name, p in undistributed(network).named_parameters() if p.grad is not None}


def refused(act: object) -> str:
    try:
        act()  # type: ignore[operator]
    except ValueError as error:
        return str(error)
    return ""


def fail() -> None:
    msg = "only the first process comes here"
    raise ValueError(msg)


def main(folder: Path) -> None:
    device = own_device("cpu")
    with together(device):
        network = distribute(made(seed=rank()), device)
        mine = slice(2 * rank(), 2 * rank() + 2)
        image, label = batch()
        found = {"gradients": gradients(network, image[mine], label[mine])}
        found |= {
            "first": from_first(rank()),
            "all": from_all(rank()),
            "by_first": by_first(rank),
            "failed": refused(lambda: by_first(fail)),
        }
        seen_by_one = folder / "last.pt"
        if rank() == 0:
            seen_by_one.write_bytes(b"")
        handler = ResumeHandler(seen_by_one if rank() == 0 else folder / "elsewhere" / "last.pt", {})
        found["apart"] = refused(lambda: handler.load(None))
        torch.save(found, folder / f"{rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
