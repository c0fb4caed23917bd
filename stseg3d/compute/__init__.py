"""Networks at work: their inputs, the runtimes that compute them, and the number of crops in a batch."""

from stseg3d.compute.inputs import append_rough, network_input
from stseg3d.compute.running import device_of, evaluating, precision_on, probabilities
from stseg3d.compute.runtimes import ensure_runtime, on_runtime
from stseg3d.compute.stage import Stage

__all__ = [
    "Stage",
    "append_rough",
    "device_of",
    "ensure_runtime",
    "evaluating",
    "network_input",
    "on_runtime",
    "precision_on",
    "probabilities",
]
