"""The command line."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

PROGRAM = "python -m experiments.pruning"


class Options(NamedTuple):
    """What was asked for; see `--help`."""

    data_dir: pathlib.Path | None
    weights: tuple[pathlib.Path, ...]
    out: pathlib.Path
    robust: bool
    examples: int
    calibration: int
    training: int
    steps: int
    sparsities: tuple[float, ...]
    methods: tuple[str, ...]
    allocations: tuple[str, ...]
    seeds: tuple[int, ...]
    quick: bool


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; a wrong one ends the program with one line and exit code 2."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if not given.quick and not (given.weights and given.data_dir):
        parser.error("--data-dir DIR and --weights FILE.safetensors are needed (or --quick, which needs neither)")
    if given.quick and given.weights:
        parser.error("--quick trains a small network on the embedded digits; leave --weights out")
    quick, robust = given.quick, given.robust
    usual = (0.8,) if quick else (0.8, 0.9, 0.95) if robust else (0.5, 0.7, 0.8, 0.9, 0.95)
    for value in given.sparsities:
        if not 0 < value < 1:
            parser.error(f"--sparsities must lie between 0 and 1; got {value}")
    return Options(
        data_dir=given.data_dir,
        weights=tuple(given.weights),
        out=given.out,
        robust=robust,
        examples=given.examples or (32 if quick else 256 if robust else 2000),
        calibration=given.calibration or (32 if quick else 1000 if robust else 256),
        training=given.training or (32 if quick else 10000),
        steps=given.steps or (2 if quick else 300),
        sparsities=tuple(given.sparsities) or usual,
        methods=tuple(given.methods),
        allocations=tuple(given.allocations),
        seeds=tuple(given.seeds),
        quick=quick,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Pruned networks, measured; see experiments/pruning/README.md.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--data-dir", type=pathlib.Path, metavar="DIR", help="folder with CIFAR-10 as tfds prepares it")
    add("--weights", type=pathlib.Path, nargs="+", default=[], metavar="FILE", help="published weights, safetensors")
    add("--out", type=pathlib.Path, default=pathlib.Path("results/pruning"), help="folder; finished rows are kept")
    add("--robust", action="store_true", help="adversarial methods, attacked before and after fine-tuning")
    add("--examples", type=int, metavar="N", help="test images (default: 2000; 256 with --robust)")
    add("--calibration", type=int, metavar="N", help="training images of the evidence (default: 256; 1000)")
    add("--training", type=int, metavar="N", help="training images of --robust that are trained on (default: 10000)")
    add("--steps", type=int, metavar="N", help="training steps of learnt scores, and of fine-tuning (default: 300)")
    add("--sparsities", type=float, nargs="+", default=[], metavar="S", help="removed fractions")
    add("--methods", nargs="+", default=[], metavar="NAME", help="only these criteria or methods")
    add("--allocations", nargs="+", default=[], metavar="NAME", help="only these allocations")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="seeds of what draws (default: 0 1 2)")
    add("--quick", action="store_true", help="a few rows on a small network and the embedded digits, in seconds")
    return parser
