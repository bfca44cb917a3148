"""The command line."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from experiments.robust_training.recipes import LOSSES

PROGRAM = "python -m experiments.robust_training"


class Options(NamedTuple):
    """What was asked for; see `--help`."""

    data_dir: pathlib.Path | None
    out: pathlib.Path
    loss: str
    depth: int
    eps: float
    epochs: int
    batch: int
    rate: float
    training: int
    examples: int
    seed: int
    quick: bool

    @property
    def name(self) -> str:
        """Of the network and its files."""
        return f"cifar10_linf{self.eps * 255:g}_resnet{self.depth}_{self.loss}"


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; a wrong one ends the program with one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Robust networks; see experiments/robust_training/README.md.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--data-dir", type=pathlib.Path, metavar="DIR", help="folder with CIFAR-10 as tfds prepares it")
    add("--out", type=pathlib.Path, default=pathlib.Path("results/robust_training"), help="folder of weights and lines")
    add("--loss", choices=LOSSES, default="aaer", help="what is lowered (default: aaer)")
    add("--depth", type=int, default=8, metavar="N", help="of the CIFAR ResNet: 8, 14, 20 ... (default: 8)")
    add("--eps", type=float, default=8, metavar="E", help="linf radius in steps of 1/255 (default: 8)")
    add("--epochs", type=int, default=30, metavar="N", help="passes over the images (default: 30)")
    add("--batch", type=int, default=128, metavar="N", help="images of a step (default: 128)")
    add("--rate", type=float, default=0.2, metavar="R", help="highest learning rate (default: 0.2)")
    add("--training", type=int, default=50000, metavar="N", help="training images (default: 50000)")
    add("--examples", type=int, default=1000, metavar="N", help="test images that are attacked (default: 1000)")
    add("--seed", type=int, default=0, metavar="N")
    add("--quick", action="store_true", help="two steps on images of noise: does everything run?")
    given = parser.parse_args(arguments)
    if given.data_dir is None and not given.quick:
        parser.error("--data-dir DIR is needed (or --quick, which needs none)")
    if given.depth < 8 or given.depth % 6 != 2:
        parser.error(f"--depth must be 6 n + 2 (8, 14, 20 ...); got {given.depth}")
    for name in ("epochs", "batch", "training", "examples"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be 1 or more; got {getattr(given, name)}")
    if given.eps < 0:
        parser.error(f"--eps must be 0 or more; got {given.eps:g}")
    asked = Options(**vars(given))._replace(eps=given.eps / 255)
    return asked._replace(training=80, examples=16, epochs=1, batch=32) if given.quick else asked
