"""What a bundle's configs may call without ``--trust``: what computes, and nothing that runs commands, loads code or opens the network."""

from __future__ import annotations

import inspect
import pydoc
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

# Packages whose classes and functions may be called. Of our own rooms, those that stand below `bundle` can load none, and of those above it
# the ones that do are refused below; tests/bundles/test_trust.py reads their imports.
PACKAGES = (
    *("monai.networks.nets", "monai.networks.blocks", "monai.networks.layers", "monai.losses", "monai.metrics", "monai.inferers"),
    *("monai.transforms", "monai.handlers", "monai.engines", "monai.optimizers", "torch.nn", "torch.optim"),
    *("stseg3d.geometry", "stseg3d.volumes", "stseg3d.ops", "stseg3d.networks", "stseg3d.losses", "stseg3d.metrics"),
    *("stseg3d.inference", "stseg3d.synthesis", "stseg3d.training"),
)

# Parts of them that may not, found by reading MONAI 1.6.1 for `locate`, `torch.hub`, `torch.load`, downloads and compilers.
REFUSED = (
    *("monai.transforms.io", "monai.transforms.utils_create_transform_ims"),  # reader and writer may be any dotted name
    *("monai.transforms.utility.array.TorchVision", "monai.transforms.utility.array.TorchIO", "monai.transforms.utility.array.CuCIM"),
    *("monai.transforms.utility.array.RandTorchVision", "monai.transforms.utility.array.RandTorchIO"),
    *("monai.transforms.utility.array.RandCuCIM", "monai.transforms.utility.dictionary.TorchVisiond"),
    *("monai.transforms.utility.dictionary.RandTorchVisiond", "monai.transforms.utility.dictionary.TorchIOd"),
    *("monai.transforms.utility.dictionary.RandTorchIOd", "monai.transforms.utility.dictionary.CuCIMd"),
    *("monai.transforms.utility.dictionary.RandCuCIMd", "monai.inferers.inferer.PatchInferer"),  # any name of another package
    *("monai.losses.perceptual", "monai.networks.nets.torchvision_fc", "monai.networks.nets.milmodel"),  # download weights or code
    *("monai.networks.nets.transchex", "monai.networks.nets.cell_sam_wrapper", "monai.networks.nets.hovernet"),
    *("monai.networks.layers.gmm", "monai.handlers.trt_handler"),  # compile
    *("monai.handlers.mlflow_handler", "monai.handlers.clearml_handlers"),  # open the network
    *("stseg3d.inference.segment", "stseg3d.training.run", "stseg3d.training.plan"),  # load other bundles
    *("stseg3d.training.options", "stseg3d.training.ensemble"),
)

_TENSORS = ("tensor", "zeros", "ones", "full", "eye", "arange", "linspace", "stack", "cat")
_DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64")
_RANKS = ("is_available", "is_initialized", "init_process_group", "destroy_process_group", "get_rank", "get_world_size", "barrier")
_NUMBERS = ("inf", "nan", "pi", "array", "asarray", "arange", "linspace", "prod", "round", "sqrt", "ceil", "floor", "log2")

# Single names: values, and functions of packages that hold much else.
NAMES = frozenset(
    (
        *("torch.device", "torch.Generator", "torch.manual_seed", "torch.set_num_threads"),
        *(f"torch.{name}" for name in (*_TENSORS, *_DTYPES, "bool", "float", "half", "long", "inf", "nan", "pi")),
        *(f"torch.cuda.{name}" for name in ("is_available", "device_count", "current_device", "set_device")),
        *(f"torch.distributed.{name}" for name in _RANKS),
        *(f"numpy.{name}" for name in (*_NUMBERS, *_DTYPES[2:])),
        *(f"math.{name}" for name in ("inf", "pi", "sqrt", "ceil", "floor", "log2", "log", "exp", "prod")),
        *(f"monai.data.dataset.{name}" for name in ("Dataset", "CacheDataset", "SmartCacheDataset", "ZipDataset", "ArrayDataset")),
        *("monai.data.dataloader.DataLoader", "monai.data.thread_buffer.ThreadDataLoader", "monai.data.samplers.DistributedSampler"),
        *(f"monai.data.utils.{name}" for name in ("list_data_collate", "pad_list_data_collate", "decollate_batch", "partition_dataset")),
        *("monai.utils.misc.set_determinism", "pathlib.Path"),
    )
)

# Modules that expressions may name, as MONAI gives them or as they import them.
MODULES = {"torch": "torch", "monai": "monai", "np": "numpy", "numpy": "numpy", "math": "math", "torch.distributed": "torch.distributed"}

# Arguments that make a component fetch something from elsewhere; MONAI's networks take True, an address or a file.
FETCHING = ("pretrained", "pretrained_url", "pretrained_path")

_DOTTED = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)


def is_within(path: str, packages: tuple[str, ...] | list[str]) -> bool:
    """Whether a dotted name is that of one of the packages, or of something inside."""
    return any(path == package or path.startswith(f"{package}.") for package in packages)


@cache
def is_allowed(path: str) -> bool:
    """Whether a dotted name is that of something a config may call or hold without ``--trust``.

    What it *is* decides, not how it is called: ``monai.data.utils.os.system`` leads into another module and is refused. Modules of the
    packages above are imported to find out, and no others.
    """
    if path in NAMES:
        return True
    if not _DOTTED.fullmatch(path) or not is_within(path, [*PACKAGES, "monai.data", "monai.utils"]):
        return False
    try:
        found = pydoc.locate(path)
    except pydoc.ErrorDuringImport:
        return False
    home = true_name(found)
    return home in NAMES or (is_within(home, PACKAGES) and not is_within(home, REFUSED))


def true_name(found: Any) -> str:
    """Where a class or function was defined, dotted; empty for anything else, and for what is defined inside a class or function."""
    if not (inspect.isclass(found) or inspect.isfunction(found)) or "." in found.__qualname__:
        return ""
    return f"{found.__module__}.{found.__qualname__}"


def fetches(path: str, given: Mapping[str, Any]) -> str:
    """The argument by which a component, of an allowed name, fetches something from elsewhere; empty if none does."""
    named = next((name for name in FETCHING if given.get(name) not in (None, False, "")), "")
    if named:
        return named
    try:
        defaults = inspect.signature(pydoc.locate(path)).parameters  # type: ignore[arg-type]  # an allowed name is found
    except (TypeError, ValueError):
        return ""
    return next((name for name in FETCHING if name in defaults and name not in given and defaults[name].default is True), "")
