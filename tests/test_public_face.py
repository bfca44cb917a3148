"""The public face: every name is there, documented, and found where the README says."""

import importlib

import pytest

import spartax as sx
from spartax import catalog

pytestmark = pytest.mark.core


def test_every_public_name_has_a_docstring():
    for name in sx.__all__:
        assert (getattr(sx, name).__doc__ or "").strip(), name


PACKAGES = [
    "prune.criteria",
    "prune.allocations",
    "prune.patterns",
    "prune.schedules",
    "lowrank.factorizations",
    "lowrank.ranks",
    "quantize.bits",
    "quantize.calibrations",
    "quantize.grids",
    "quantize.observers",
    "quantize.roundings",
]


@pytest.mark.parametrize("name", PACKAGES)
def test_plugs_are_offered_by_their_family(name):
    package = importlib.import_module(f"spartax.{name}")
    family = importlib.import_module(f"spartax.{name.split('.')[0]}")
    assert catalog.names(package)
    for plug in catalog.names(package):
        assert getattr(family, plug).__name__ == plug
        assert getattr(family, plug).__doc__
