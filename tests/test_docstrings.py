"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import stseg3d

# Importing __main__ is harmless, but there is nothing in it.
MODULES = sorted(m.name for m in pkgutil.walk_packages(stseg3d.__path__, "stseg3d.") if not m.name.endswith("__main__"))


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
