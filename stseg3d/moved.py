"""Former names of modules, so that configs and programs that use them keep working."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import cast

# The longest former name that fits applies; modules inside a package moved with it.
MOVED: dict[str, str] = {
    "stseg3d.bundle.lookup": "stseg3d.bundle_folders",
    "stseg3d.compare.sliding_window": "stseg3d.training.sliding_window",
    "stseg3d.batch.fingerprints": "stseg3d.results.stamps",
    "stseg3d.batch.outcomes": "stseg3d.results.journal",
    "stseg3d.batch.stamps": "stseg3d.results.stamps",
    "stseg3d.inference.batches": "stseg3d.compute.batches",
    "stseg3d.inference.gather": "stseg3d.compute.gather",
    "stseg3d.inference.onednn": "stseg3d.compute.onednn",
    "stseg3d.inference.runtimes": "stseg3d.compute.runtimes",
    "stseg3d.inference.stages": "stseg3d.compute",
    "stseg3d.compare.comparing": "stseg3d.compare.experiment",
    "stseg3d.compare.output": "stseg3d.compare.write",
    "stseg3d.compare.results": "stseg3d.compare.comparison",
    "stseg3d.compare.sheet": "stseg3d.compare.figure_style",
    "stseg3d.compare.sheets": "stseg3d.compare.csv_rows",
    "stseg3d.compare.summary": "stseg3d.compare.means",
    "stseg3d.compare.table": "stseg3d.compare.text_tables",
    "stseg3d.networks.strides": "stseg3d.networks.size_check",
    "stseg3d.inference.memory": "stseg3d.machine.memory",
    "stseg3d.volumes.picture": "stseg3d.volumes.pictures",
    "stseg3d.volumes.threads": "stseg3d.machine.threads",
    "stseg3d.training.anatomy": "stseg3d.synthesis.phantoms",
    "stseg3d.training.anatomy.painting": "stseg3d.synthesis.phantoms.shapes",
    "stseg3d.training.phantoms": "stseg3d.synthesis.phantoms",
    "stseg3d.training.synthesis": "stseg3d.synthesis",
    "stseg3d.training.synthesis.anatomy": "stseg3d.synthesis.label_maps",
    "stseg3d.training.synthesis.scan": "stseg3d.synthesis.scanner",
}


class FormerNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finder of modules by their former names, which gives the same objects as their present ones."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Spec of a module that has moved; None for all others, and for a class that ``pydoc.locate`` takes for a module."""
        del path, target
        present = present_name(fullname)
        spec = importlib.util.find_spec(present) if present else None
        return spec and importlib.util.spec_from_loader(fullname, self, is_package=spec.submodule_search_locations is not None)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module under its present name."""
        module = importlib.import_module(present_name(spec.name))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing, as the module was executed under its present name."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state

    def get_code(self, fullname: str) -> CodeType | None:
        """Code for ``python -m`` with a former name."""
        spec = importlib.util.find_spec(present_name(fullname))
        assert spec is not None
        return cast(importlib.abc.InspectLoader, spec.loader).get_code(spec.name)


def present_name(former: str) -> str:
    """Present name of a moved module; empty if it has not moved."""
    if not former.startswith("stseg3d."):
        return ""
    parts = former.split(".")
    for n in range(len(parts), 1, -1):
        if (start := ".".join(parts[:n])) in MOVED:
            return ".".join([MOVED[start], *parts[n:]])
    return ""


def install() -> None:
    """Let imports find former names first, or a moved package's folder would give its modules a second time."""
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, FormerNames())
