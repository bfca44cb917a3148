"""`python -m experiments.robust_training.layers --data-dir DIR`: which parts of a network an attack moves most.

Paper: *Layer-wise Regularized Adversarial Training using Layers Sustainability Analysis framework* (S095). For every
block, and layer outside of blocks, the mean over test images of `|phi(x) - phi(x')| / |phi(x)|`, its outputs after the
ReLU, of images before and after PGD-20; logits are left out, as in the code of the paper.
`--examples 500` and all networks take about a minute on two CPU cores. Prints a table and writes `--out` as JSON.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.tree_util import Partial
from rich.console import Console
from rich.table import Table

from experiments.common import configs, networks
from spartax import attacks, train
from spartax.records import Array, Params

ROBUST = ("resnet8", "resnet20_robust", "cnn_a", "resnet2b")


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.robust_training.layers", description=__doc__)
    parser.add_argument("--data-dir", required=True, help="folder with CIFAR-10 and published weights")
    parser.add_argument("--network", nargs="+", default=ROBUST, choices=sorted(networks.PUBLISHED))
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file")
    given = parser.parse_args(arguments)
    found = {name: measured(name, given.data_dir, given.examples) for name in given.network}
    for name, one in found.items():
        table = Table("part", "moved by", "", title=f"{name}, linf {one['eps'] * 255:g}/255, {given.examples} images")
        for part, value in one["moved"].items():
            table.add_row(part, f"{value:.3f}", "most vulnerable" if part in one["most_vulnerable"] else "")
        Console().print(table)
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def measured(name: str, data_dir: str, examples: int) -> dict:
    """How far the parts of one network are moved, by name, and those that are moved most."""
    config = configs.base(
        network=name, data_dir=data_dir, examples=examples, method="layers", calibration=1, training=1
    )
    subject = networks.load(config)
    attack = attacks.pgd(subject.eps, steps=20)
    network = Partial(subject.apply_fn, subject.variables)
    x, y = jax.device_put(subject.test[:2])
    attacked = jax.jit(attack)(jax.random.key(0), network, x, y)
    moved = train.sustainability(parts(subject.module), subject.variables, x, attacked)
    about = {"eps": subject.eps, "examples": len(y)}
    return {**about, "moved": moved, "most_vulnerable": train.most_vulnerable(moved)}


def parts(module: nn.Module) -> train.Activations:
    """Outputs after the ReLU of the blocks, and of the layers outside of them, that the module calls; not the logits.

    For networks where a ReLU follows each of them, or the normalization that comes next: all that are measured here.
    """

    def activations(variables: Params, x: Array) -> dict[str, Array]:
        found: dict[str, Array] = {}

        def keep(call: Callable[..., Any], given: tuple, options: dict, context: Any) -> Any:
            output = call(*given, **options)
            if context.method_name == "__call__" and len(context.module.path) == 1:
                if isinstance(context.module, nn.BatchNorm):
                    found.popitem()  # the layer that is normalized
                found[context.module.path[0]] = nn.relu(output)  # of a block it is there already
            return output

        with nn.intercept_methods(keep):
            module.apply(variables, x)
        found.popitem()  # the logits
        return found

    return activations


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
