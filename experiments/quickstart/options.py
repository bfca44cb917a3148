"""The command line."""

import argparse
import fractions
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

PROGRAM = "python -m experiments.quickstart"


class Options(NamedTuple):
    """What was asked for; see `--help`."""

    data: str
    data_dir: pathlib.Path | None
    weights: pathlib.Path | None
    examples: int | None
    eps: float | None
    epochs: int
    pgd_steps: int
    pgd_restarts: int
    queries: int
    seed: int
    out: pathlib.Path
    quick: bool


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Print and leave with exit code 2."""
        self.exit(2, f"{PROGRAM}: {message}\n")


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; a wrong one ends the program with one line and exit code 2."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.data == "digits" and (given.weights or given.data_dir):
        parser.error("--weights and --data-dir need --data cifar10 or mnist; the digits network is trained here")
    if given.data != "digits" and not given.weights:
        parser.error(f"--data {given.data} needs --weights FILE.safetensors: nothing is trained on it here")
    if given.weights and not given.weights.is_file():
        parser.error(f"--weights: no file {given.weights}")
    quick = given.quick
    given.epochs = given.epochs or (4 if quick else 20)
    given.pgd_steps = given.pgd_steps or (5 if quick else 20)
    given.pgd_restarts = given.pgd_restarts or (1 if quick else 2)
    given.queries = given.queries or (10 if quick else 100)
    given.examples = given.examples or (64 if quick else None if given.data == "digits" else 256)
    return Options(**vars(given))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM, description="Compress a robust network eight ways and measure each.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--data", choices=("digits", "cifar10", "mnist"), default="digits", help="images (default: digits, embedded)")
    add("--data-dir", type=pathlib.Path, metavar="DIR", help="folder of prepared TFDS sets, for cifar10 and mnist")
    add("--weights", type=pathlib.Path, metavar="FILE", help="PyTorch weights (.safetensors) to load; no training then")
    add("--examples", type=_positive, metavar="N", help="test images (default: all 364 digits, 256 of other sets)")
    add("--eps", type=_eps, help="linf radius in the pixel range [0, 1], as 0.1 or 8/255 (default: the network's own)")
    add("--epochs", type=_positive, help="adversarial training on digits (default: 20)")
    add("--pgd-steps", type=_positive, help="steps of the PGD that measures (default: 20)")
    add("--pgd-restarts", type=_positive, help="its restarts (default: 2)")
    add("--queries", type=_positive, help="of the Square attack, which needs no gradients (default: 100)")
    add("--seed", type=int, default=0, help="seed of training, random pruning and attacks (default: 0)")
    add("--out", type=pathlib.Path, default=pathlib.Path("results/quickstart"), help="folder of the results")
    add("--quick", action="store_true", help="seconds instead of a minute: few epochs, images and attack steps")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive integer; got {text!r}")
    return int(text)


def _eps(text: str) -> float:
    try:
        value = float(fractions.Fraction(text))
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"must be a number or fraction in (0, 1); got {text!r}")
    return value
