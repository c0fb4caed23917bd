"""An ensemble answers with the mean of what its networks say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stseg3d.compute import probabilities
from stseg3d.networks import MeanEnsemble


class Says(nn.Module):
    """A network that says the same of each voxel."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1, *x.shape[2:])


X = torch.zeros(2, 1, 3, 4)


@pytest.mark.parametrize("logits", [[(0.0, 1.0), (3.0, -1.0)], [(1.0, 2.0, 3.0), (0.0, 0.0, 0.0), (9.0, 1.0, 0.0)], [(2.0,), (-1.0,)]])
def test_probabilities_are_the_mean_of_the_networks(logits: list[tuple[float, ...]]) -> None:
    networks = [Says(*each) for each in logits]
    mean = torch.stack([probabilities(network, X) for network in networks]).mean(dim=0)
    found = MeanEnsemble(networks)(X)
    assert (found.dtype, found.shape) == (torch.float32, (2, len(logits[0]), 3, 4))
    torch.testing.assert_close(probabilities(MeanEnsemble(networks), X), mean)


def test_one_network_is_itself() -> None:
    network = nn.Conv2d(1, 3, 1)
    x = torch.randn(2, 1, 3, 4)
    torch.testing.assert_close(probabilities(MeanEnsemble([network]), x), probabilities(network, x))


def test_networks_that_are_certain_do_not_make_infinities() -> None:
    for networks in ([Says(200.0, -200.0)] * 2, [Says(-200.0)] * 2):
        assert torch.isfinite(MeanEnsemble(networks)(X)).all()


def test_an_ensemble_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="networks must hold at least one network, got none"):
        MeanEnsemble([])
