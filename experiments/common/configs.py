"""Config files: Python with `get_config()`, `label(config)` and `build(config)`, changed from the command line.

A config file says in its header which question it answers, after which paper, by which command, in which time on which
machine, and which number to expect. It defines

* `get_config() -> ConfigDict`: numbers and names, begun with `configs.base()`;
* `label(config) -> str`: the method and its operating point, as shown in tables;
* `build(config) -> tuple of Transforms`: what the network is compressed with, none for a dense one;
* `training(config, subject) -> Transform`, where the network is compressed inside adversarial training;
* `compressed(config, subject) -> Params`, in place of `build`, where the weights come about in another way;
* `judges(config, eps) -> name -> Attack`, where other attacks, or none, are run;
* `network(config, dense) -> Subject`, where another network takes the place of the compressed one;
* `subject(config) -> Subject`, where the network is none of `networks.py`;
* `QUICK`, values of its own that `--quick` sets.
"""

import ast
import fractions
import importlib.util
import json
import pathlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from spartax import checks, measure

QUICK = {
    "widths": (8,),
    "hidden": 32,
    "examples": 48,
    "calibration": 64,
    "epochs": 3,
    "pgd_steps": 3,
    "restarts": 1,
    "queries": 20,
    "curve": (2.0,),
    "timed": False,
    "autoattack": False,
}
ROLES = ("method", "baseline", "dense")
NO_PART_OF_A_RESULT = ("seed", "out", "data_dir", "weights", "mesh")  # the seed has its own field, machines differ


class Config(NamedTuple):
    """A config file with the changes of the command line.

    Attributes:
      file: as given.
      values: its values.
      module: with `label`, `build` and perhaps `network`.
    """

    file: str
    values: ConfigDict
    module: ModuleType

    @property
    def label(self) -> str:
        """As shown in tables."""
        return self.module.label(self.values)

    @property
    def options(self) -> dict[str, Any]:
        """What the result depends on besides the seed, as a record holds it; of a file of weights its name."""
        kept = {name: value for name, value in self.values.items() if name not in NO_PART_OF_A_RESULT}
        if self.values.weights is not None:
            kept["weights"] = pathlib.Path(self.values.weights).stem
        return json.loads(json.dumps(kept))

    @property
    def identity(self) -> str:
        """The same text for the same run, also when it is read back from a record."""
        return identity(self.label, self.options, self.values.seed)


def identity(label: str, options: dict[str, Any], seed: int) -> str:
    """What tells one run from another; a new option that is None changes no run."""
    return json.dumps([label, measure.chosen(options), seed], sort_keys=True)


def base(**values: Any) -> ConfigDict:
    """The values that every run has, changed and added to by `values`."""
    common = {
        "method": config_dict.required_placeholder(str),  # family of operating points
        "role": "method",  # or "baseline", "dense"
        "network": "digits",  # trained here; others are published and need data_dir
        "widths": (16, 32, 64),  # channels of the network trained here
        "hidden": 64,  # its hidden units
        "data_dir": config_dict.placeholder(str),  # folder of prepared TFDS sets
        "weights": config_dict.placeholder(str),  # file; found under data_dir when left out
        "seed": 0,
        "eps": config_dict.placeholder(float),  # radius it was trained for when left out; at 0 no attack is run
        "examples": config_dict.placeholder(int),  # test images; all digits, 256 of other sets when left out
        "calibration": 256,  # training images of the evidence and of batch statistics
        "training": 10000,  # training images of adversarial training and fine-tuning
        "epochs": 20,  # of networks trained here
        "tune_epochs": 0,  # of adversarial fine-tuning after compression
        "tune_rate": 5e-4,
        "pgd_steps": 20,
        "restarts": 2,
        "queries": 500,  # of Square
        "autoattack": False,  # AutoAttack (standard) on top of other attacks
        "curve": (0.5, 1.5, 2.0),  # radii of the security curve, in multiples of eps
        "timed": True,  # latency
        "mesh": config_dict.placeholder(
            tuple
        ),  # (rows, columns) of devices: batches are split over rows, large weights
        # over columns; one device when left out
        "out": "results/benchmark",
    }
    return ConfigDict(common | values)


def load(file: str, changes: Sequence[tuple[str, str]] = (), *, quick: bool = False) -> Config:
    """Read a config file and change its values.

    Args:
      file: path.
      changes: names and values as text, as on the command line; they win over `quick`.
      quick: few images, steps and epochs.

    Raises:
      ValueError: no such file, a file that cannot be imported, lacks a function or gives no config, an unknown name, a
        wrong value.
    """
    module = load_module(file, ("get_config", "label"))
    if not hasattr(module, "compressed"):
        _need(module, file, ("build",))
    values = module.get_config()
    if not isinstance(values, ConfigDict) or set(base()) - set(values):
        raise ValueError(f"{file}: get_config() must give a ConfigDict begun with configs.base(); got {values!r:.80}")
    if quick:
        values.update({**QUICK, **getattr(module, "QUICK", {}), "out": f"{values.out}-quick"})
    for name, text in changes:
        _change(values, name, text)
    check(values)
    return Config(file, values, module)


def check(values: ConfigDict) -> None:
    """The values that every config has.

    Raises:
      ValueError: a number out of its range.
    """
    named = lambda name: (f"--config.{name}", values[name])  # noqa: E731
    for name in ("calibration", "training", "epochs", "pgd_steps", "restarts", "queries", "hidden"):
        checks.positive_int(*named(name))
    for name in ("seed", "tune_epochs"):
        checks.positive_int(*named(name), least=0)
    checks.in_range(*named("seed"), 0, 2**32 - 1)
    checks.in_range(*named("tune_rate"), 0.0, float("inf"), open_high=True)
    checks.one_of(*named("role"), ROLES)
    if values.examples is not None:
        checks.positive_int(*named("examples"))
    if values.eps is not None:
        checks.in_range(*named("eps"), 0.0, 1.0)
    for name, one in (("widths", checks.positive_int), ("curve", checks.positive)):
        for i, value in enumerate(values[name]):
            one(f"--config.{name}[{i}]", value)


def load_module(file: str, functions: Sequence[str]) -> ModuleType:
    """Import a Python file by its path; it must define these functions.

    Raises:
      ValueError: no such file, one that cannot be imported, one that lacks a function.
    """
    path = pathlib.Path(file)
    if not path.is_file():
        near = [str(other) for other in sorted(path.parent.glob("*.py")) if other.stem != "__init__"]
        hint = f"; there are {', '.join(near)}" if near else ""
        raise ValueError(f"no file {file}{hint}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{file} imports {error.name!r}, which is not installed: pip install it, or leave it out"
        ) from error
    except Exception as error:
        raise ValueError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    _need(module, file, functions)
    return module


def _need(module: ModuleType, file: str, functions: Sequence[str]) -> None:
    missing = [name for name in functions if not hasattr(module, name)]
    if missing:
        raise ValueError(f"{file} must define {', '.join(missing)}; see experiments/common/configs.py")


def _change(values: ConfigDict, name: str, text: str) -> None:
    checks.one_of("--config.KEY", name, sorted(values))
    kind = values.get_type(name)
    try:
        values[name] = text if kind is str else _number(text) if kind is float else ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"--config.{name} must be a value of type {kind.__name__}; got {text!r}") from error


def _number(text: str) -> float:
    """A number or a fraction, as 8/255."""
    try:
        return float(text)
    except ValueError:
        return float(fractions.Fraction(text))


def parse_changes(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """`["--config.seed=1"] -> [("seed", "1")]`.

    Raises:
      ValueError: an argument of another form.
    """
    found = []
    for argument in arguments:
        name, separator, text = argument.removeprefix("--config.").partition("=")
        if not (argument.startswith("--config.") and separator and name):
            raise ValueError(f"unknown argument {argument!r}; values are given as --config.KEY=VALUE")
        found.append((name, text))
    return found
