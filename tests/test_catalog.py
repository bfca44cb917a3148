"""Plugs are found by file name; none can be forgotten."""

import inspect
import pathlib

import pytest

from spartax import catalog, lowrank, prune, quantize
from spartax.records import Evidence

FACES = {
    prune: (prune.criteria, prune.allocations, prune.patterns, prune.schedules),
    lowrank: (lowrank.factorizations, lowrank.ranks),
    quantize: (quantize.grids, quantize.calibrations, quantize.observers, quantize.bits, quantize.roundings),
}
PLUGS = [
    (face, package, name) for face, packages in FACES.items() for package in packages for name in catalog.names(package)
]


def test_every_folder_of_plugs_is_offered():
    for face, packages in FACES.items():
        folders = {p.parent.name for p in pathlib.Path(face.__file__).parent.glob("*/__init__.py")}
        assert folders == {p.__name__.rsplit(".", 1)[1] for p in packages}


@pytest.mark.parametrize(("face", "package", "name"), PLUGS, ids=lambda v: getattr(v, "__name__", v))
def test_a_plug_is_a_factory_named_like_its_file(face, package, name):
    factory = getattr(face, name)
    assert factory is catalog.load(package, name)
    assert factory.__name__ == name
    assert factory.__doc__
    assert name in dir(face)
    module = inspect.getmodule(factory)
    own = [k for k, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
    factories = [k for k in own if inspect.signature(vars(module)[k]).return_annotation in KINDS]
    assert factories == [name]


KINDS = tuple(inspect.signature(getattr(face, name)).return_annotation for face, _, name in PLUGS)


def test_no_two_plugs_of_a_face_share_a_name():
    for face in FACES:
        names = [name for f, _, name in PLUGS if f is face]
        assert len(names) == len(set(names))


def test_names_are_those_of_the_files():
    files = {p.stem for p in pathlib.Path(prune.criteria.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(catalog.names(prune.criteria)) == files
    assert {"magnitude", "random"} <= files


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"prune.criteria must be one of .*'magnitude', .*Did you mean 'magnitude'\?"):
        catalog.load(prune.criteria, "magnitud")
    with pytest.raises(AttributeError, match=r"no attribute 'magnitud'. Did you mean 'magnitude'"):
        _ = prune.magnitud
    with pytest.raises(AttributeError, match=r"Its plugs are .*absmax, .*nearest"):
        _ = quantize.zzz
    assert not hasattr(prune, "svd")


def test_evidence_that_is_missing_is_named():
    catalog.require({"layouts"}, Evidence({}))
    with pytest.raises(ValueError, match="grads is needed by this method"):
        catalog.require({"layouts", "grads"}, Evidence({}))
    with pytest.raises(ValueError, match="hessians is needed"):
        catalog.require({"hessians"}, Evidence({}))
