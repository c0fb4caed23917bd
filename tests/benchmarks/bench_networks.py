"""What the networks of a bundle cost on the CPU, a crop: by batch size, and in ways of running them that are known to be fast.

Run: ``python tests/benchmarks/bench_networks.py [BUNDLE...] [--threads 1] [--repeats 5]``; by default all embedded bundles. All rows take
their turn in each round; the least processor seconds of a crop over the rounds. First: what the first run, which compiles or chooses
kernels, takes beyond that; ``torch.compile`` needs a C++ compiler, OpenVINO ``stseg3d[openvino]``. Differ: the largest difference of a
probability from the first row's. "PyTorch's choice" is without :class:`stseg3d.compute.onednn.LoneCrops`.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from stseg3d.bundle import find_bundle, load_network
from stseg3d.compute import evaluating, probabilities
from stseg3d.compute.running import lay_channels_last
from stseg3d.compute.runtimes import OPENVINO, on_runtime

BUNDLES = ("aorta_ct_segmentation", "vertebrae_mr_segmentation", "nuclei_segmentation")
BATCHES = (8, 4, 2, 1)
PRECISIONS = ("float32", "bfloat16")


@dataclass
class Row:
    """A way of running a network on so many crops, and what came of it."""

    way: str
    precision: str
    batch: Tensor
    network: nn.Module
    first: float = 0.0
    least: float = float("inf")
    found: Tensor = field(default_factory=lambda: torch.empty(0))

    def run(self) -> float:
        """Processor seconds of one run."""
        with evaluating(self.network, self.precision):
            start = time.process_time()
            if self.way == "PyTorch's choice":
                with torch._C.DisableTorchFunction():
                    self.found = probabilities(self.network, self.batch)
            else:
                self.found = probabilities(self.network, self.batch)
            return time.process_time() - start


def channels_last(network: nn.Module) -> nn.Module:
    """With the weights of its convolutions channels last."""
    lay_channels_last(network)
    return network.to(memory_format=torch.channels_last) if not any(p.ndim == 5 for p in network.parameters()) else network


def frozen(network: nn.Module, batch: Tensor) -> nn.Module:
    """Traced, its constants folded, its weights packed for oneDNN."""
    # In a module: a frozen one has no mode that could be set.
    return nn.Sequential(torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(network.eval(), batch))))


def rows_of(fresh: Callable[[], nn.Module], batch: Tensor) -> list[Row]:
    """Everything that is measured of one network."""
    rows = [Row("as it is", p, batch[:n], fresh()) for p in PRECISIONS for n in BATCHES if n <= len(batch)]
    rows.append(Row("PyTorch's choice", "float32", batch[:1], fresh()))
    for precision in PRECISIONS:
        rows.append(Row("channels last", precision, batch, channels_last(fresh())))
        rows.append(Row("torch.compile", precision, batch, torch.compile(fresh(), dynamic=False)))
    rows.append(Row("jit.freeze", "float32", batch, frozen(fresh(), batch)))
    if find_spec("openvino"):
        numbers = sorted({len(batch), 1}, reverse=True)
        rows += [Row("OpenVINO", p, batch[:n], on_runtime(OPENVINO, fresh(), "fine")) for p in PRECISIONS for n in numbers]
    return rows


def report(title: str, rows: list[Row], repeats: int) -> None:
    """Run all rows and print them."""
    for row in rows:
        row.first = row.run()
    for _ in range(repeats):
        for row in rows:
            row.least = min(row.least, row.run())
    print(f"\n{title}, {torch.get_num_threads()} thread(s)\n")
    print("| way | precision | crops at once | ms a crop | of the first row | first, s | differ |\n|---|---|---|---|---|---|---|")
    each = rows[0].least / len(rows[0].batch)
    for row in rows:
        n = len(row.batch)
        differ = float((row.found - rows[0].found[:n]).abs().max())
        share = row.least / n / each
        extra = max(row.first - row.least, 0)
        print(f"| {row.way} | {row.precision} | {n} | {1000 * row.least / n:.1f} | {share:.2f} | {extra:.2f} | {differ:.0e} |", flush=True)


def main() -> None:
    """Measure both networks of each bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", default=BUNDLES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.bundles:
        network, bundle = load_network(find_bundle(name), "cpu")
        inferer = bundle.get_parsed_content("inferer")
        for stage, most in (("fine", BATCHES[0]), ("rough", 1)):
            size = tuple(getattr(inferer, stage).size)
            batch = torch.randn(most, inferer.image.channels, *size, generator=torch.Generator().manual_seed(0))
            own = getattr(network, stage).eval()

            def fresh(own: nn.Module = own) -> nn.Module:
                return copy.deepcopy(own)

            report(f"{name}: {stage} network, {' x '.join(map(str, size))}", rows_of(fresh, batch), options.repeats)


if __name__ == "__main__":
    main()
