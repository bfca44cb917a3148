"""What `spartax compress` was asked for: as transforms, and in words."""

import argparse
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from spartax import catalog, lowrank, measure, prune, quantize
from spartax.cli import network
from spartax.records import Transform

# step -> the options that say how it is done
OPTIONS = {
    "prune": ("sparsity", "allocation", "pattern"),
    "factorize": ("energy", "bytes"),
    "quantize": ("bits", "group", "calibration", "rounding"),
}


def settled(given: argparse.Namespace) -> argparse.Namespace:
    """With the sparsity and the allocation that `prune` takes where none are given: a pattern may fix them.

    Raises:
      ValueError: no step, an option of a step that was not asked for, an unknown pattern.
    """
    if not any(getattr(given, step) for step in OPTIONS):
        raise ValueError("give at least one of --prune, --factorize and --quantize")
    for step, options in OPTIONS.items():
        lone = [name for name in options if getattr(given, name) is not None and not getattr(given, step)]
        if lone:
            raise ValueError(f"--{lone[0]} belongs to --{step}, which is not given")
    if not given.prune:
        return given
    fixed = getattr(_plug("pattern", prune.patterns, given), "sparsity", None)
    chosen = {
        "sparsity": (0.9 if fixed is None else fixed) if given.sparsity is None else given.sparsity,
        "allocation": given.allocation or ("pooled" if fixed is None else "uniform"),
    }
    return argparse.Namespace(**{**vars(given), **chosen})


def transforms(given: argparse.Namespace) -> list[Transform]:
    """The transforms that were asked for, in the order in which they work best.

    Raises:
      ValueError: names or values that a step does not take.
    """
    steps = []
    if given.prune:
        criterion = _plug("prune", prune.criteria, given)
        allocation = _plug("allocation", prune.allocations, given)
        steps.append(prune.prune(criterion, given.sparsity, allocation, _plug("pattern", prune.patterns, given)))
    if given.factorize:
        if given.energy is None and given.bytes is None:
            raise ValueError("--factorize needs --energy FRACTION or --bytes FRACTION")
        ranks = lowrank.energy(given.energy) if given.bytes is None else lowrank.byte_budget(given.bytes)
        steps.append(lowrank.factorize(_plug("factorize", lowrank.factorizations, given), ranks))
    if given.quantize:
        options = {name: getattr(given, name) for name in ("bits", "group") if getattr(given, name) is not None}
        grid = _plug("quantize", quantize.grids, given, **options)
        calibration = _plug("calibration", quantize.calibrations, given)
        steps.append(quantize.quantize(grid, calibration, _plug("rounding", quantize.roundings, given)))
    return steps


def _plug(option: str, package: ModuleType, given: argparse.Namespace, **options: Any) -> Any:
    """The method that an option names, None where it was not given."""
    name = getattr(given, option)
    if name is None:
        return None
    factory: Callable[..., Any] = catalog.load(package, name)
    known = inspect.signature(factory).parameters
    needs = [field for field, it in known.items() if it.default is it.empty and field not in options]
    if needs:
        raise ValueError(f"--{option} {name} needs {', '.join(needs)}, which only Python can give")
    try:
        return factory(**options)
    except TypeError as error:  # it has no such option
        raise ValueError(f"--{option} {name}: {error}") from error


def about(given: argparse.Namespace, before: network.About) -> network.About:
    """What was done to the network, after what had been done before."""
    words, options = [], {}
    if given.prune:
        names = filter(None, (given.prune, given.allocation, given.pattern))
        words.append((", ".join(names), f"{100 * given.sparsity:g}%"))
    if given.factorize:
        part = "energy" if given.bytes is None else "bytes"
        words.append((given.factorize, f"{100 * getattr(given, part):g}% of {part}"))
    if given.quantize:
        sizes = {"bits": f"{given.bits} bits", "group": f"groups of {given.group}"}
        texts = [text for name, text in sizes.items() if getattr(given, name) is not None]
        words.append((given.quantize, *texts, *filter(None, (given.calibration, given.rounding))))
    for step in filter(lambda step: getattr(given, step), OPTIONS):
        options |= {name: getattr(given, name) for name in (step, *OPTIONS[step])}
    # in records `calibration` names the images
    options["scales"] = options.pop("calibration", None)
    if given.data:
        options |= {"calibration": given.data, "calibration_images": given.examples}
    if given.seed:
        options["compress_seed"] = given.seed
    method = " + ".join([*filter(None, [before.options.get("method")]), *(word[0] for word in words)])
    options = {**before.options, **measure.chosen(options), "method": method}
    return before._replace(steps=(*before.steps, *(", ".join(word) for word in words)), options=options)
