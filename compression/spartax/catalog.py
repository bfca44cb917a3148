"""Plugs are found by file name: a method is one file with one public factory named like the file, and no registry."""

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

from spartax import checks


def names(package: ModuleType) -> list[str]:
    """Names of the plugs of a package: its modules, without those that begin with an underscore."""
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def load(package: ModuleType, name: str) -> Callable[..., Any]:
    """The factory `name` from the file `name` of a package.

    Raises:
      ValueError: no such file; the message lists those there are.
    """
    checks.one_of(package.__name__.removeprefix("spartax."), name, names(package))
    return getattr(importlib.import_module(f"{package.__name__}.{name}"), name)


def exports(module: str, *packages: ModuleType) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module that offers every plug of `packages` under its own name."""

    def attribute(name: str) -> Any:
        for package in packages:
            if name in names(package):
                return load(package, name)
        known = sorted(n for package in packages for n in names(package))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Its plugs are {', '.join(known)}."
        raise AttributeError(f"module {module!r} has no attribute {name!r}.{hint}")

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[module]), *(n for package in packages for n in names(package))})

    return attribute, listing


def require(needs: Collection[str], evidence: Any) -> None:
    """Every field of the evidence that a plug says it needs must be there; one that is not is named."""
    for field in sorted(needs):
        need(field, evidence)


def need(field: str, evidence: Any) -> Any:
    """A field of the evidence.

    Raises:
      ValueError: the field is missing.
    """
    value = getattr(evidence, field, None)
    if value is None:
        raise ValueError(
            f"{field} is needed by this method and missing from its evidence; compress takes key=, and works out "
            "originals by itself, uses, biases and scalings from batches=, means, moments, magnitudes, peaks, "
            "ranges, histograms and objective from batches "
            "with values, grads and signals from batches= with labels and loss=; a step is counted by train.fit."
        )
    return value
