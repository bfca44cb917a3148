"""`python -m experiments.robust_training`: see README.md here."""

import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.tree_util import Partial
from rich.console import Console

from experiments.common import measuring
from experiments.common.subject import Subject, initialized, training_mode
from experiments.robust_training.options import PROGRAM, Options, parse
from experiments.robust_training.recipes import LOSSES, augmented, optimizer
from spartax import attacks, data, measure, models, train
from spartax.records import ApplyFn, Params

HELD, WATCHED, WATCH_STEPS = 1000, 500, 10  # images set aside, and those looked at after each epoch


def main(arguments: Sequence[str]) -> int:
    """Train, judge, save; returns the exit code: 0, 2 for what cannot be done, 130 when interrupted."""
    options = parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        return _run(options, console)
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        console.print(f"interrupted; the same command goes on from the last epoch in {options.out}")
        return 130


def _run(options: Options, console: Console) -> int:
    options.out.mkdir(parents=True, exist_ok=True)
    images, test = _images(options)
    module, start = models.resnet_cifar(options.depth, shortcut="B"), time.perf_counter()
    rest, held = data.hold_out(images, min(HELD, len(images.y) // 5), jax.random.key(options.seed))
    state = _trained(options, module, rest, held)
    seconds = time.perf_counter() - start
    best = state.best
    weights = options.out / f"{options.name}.safetensors"
    about = {"training": f"{options.loss}, Linf {options.eps * 255:g}/255", "source": PROGRAM}
    models.save(weights, module, best.variables, about)
    console.print(f"{weights}: of step {best.step}, {best.score:.1%} of the held-out images robust")
    subject = Subject(options.name, models.eval_apply(module), best.variables, test, options.eps, 255, rest, module)
    lines = options.out / "networks.jsonl"
    done = [row for row in (measure.read(lines) if lines.exists() else []) if row.method == options.name]
    row = done[-1] if done else _judged(options, subject, seconds)
    if not done:
        measure.append(lines, row)
    console.print(f"{row.method}: clean {row.clean:.1%}, " + ", ".join(f"{n} {v:.1%}" for n, v in row.robust.items()))
    return 0


def _images(options: Options) -> tuple[data.Dataset, data.Dataset]:
    if not options.quick:
        load = lambda split: data.load("cifar10", split, options.data_dir)  # noqa: E731
        return load(f"train[:{options.training}]"), load(f"test[:{options.examples}]")
    draw = np.random.default_rng(0)
    noise = [
        data.Dataset(
            draw.random((n, 32, 32, 3), np.float32),
            draw.integers(0, 10, n, np.int32),
            f"noise/{name}",
            10,
            tuple("0123456789"),
        )
        for name, n in (("train", options.training), ("test", options.examples))
    ]
    return noise[0], noise[1]


def _trained(options: Options, module: models.ResNet, images: data.Dataset, held: data.Dataset) -> train.State:
    """The state after all epochs; its `best` has the weights with most held-out images robust."""
    per_epoch = len(images.y) // options.batch
    steps = per_epoch * options.epochs
    tx, apply = optimizer(options.rate, steps), models.eval_apply(module)
    loss = augmented(LOSSES[options.loss](options.eps))
    step = train.make_step(loss, tx, apply, training_mode(module))
    key = jax.random.key(options.seed)
    fixed = {"data": images.name, "batch": options.batch, "loss": options.loss, "eps": options.eps}
    folder = options.out / options.name
    state, _ = train.fit(
        step,
        train.init_state(initialized(module, images, options.seed), tx),
        data.batches(images, options.batch, key, epochs=options.epochs, drop_last=True),
        key,
        validate=train.validation(_score(options, apply, held), every=per_epoch),
        keep=train.checkpoints(folder, every=per_epoch, config={**fixed, "rate": options.rate, "steps": steps}),
        logs=[train.json_lines(options.out / f"{options.name}.training.jsonl")],
        total=steps,
        name=options.name,
    )
    return state


def _score(options: Options, apply: ApplyFn, held: data.Dataset):
    """Share of some held-out images that stay correct under PGD."""
    pgd = {"PGD": attacks.pgd(options.eps, steps=WATCH_STEPS)}
    x, y = held.x[:WATCHED], held.y[:WATCHED]

    def score(variables: Params) -> float:
        found = measure.robustness(pgd, Partial(apply, variables), x, y, jax.random.key(0), min(100, len(y)))
        return float(found.worst.mean())

    return score


def _judged(options: Options, subject: Subject, seconds: float) -> measure.Record:
    """Clean accuracy, PGD-20 and AutoAttack on test images."""
    pgd = {"PGD-20": attacks.pgd(options.eps, steps=2 if options.quick else 20)}
    ensemble = None if options.quick else attacks.autoattack(options.eps, verbose=False)
    bench = measuring.bench(subject, pgd, options.seed)
    about = {"epochs": options.epochs, "batch": options.batch, "rate": options.rate, "seconds": round(seconds)}
    row = {"method": options.name, "options": about, "role": "dense"}
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / "weights"
        return measuring.record(bench, subject.variables, place, row, start=time.perf_counter(), ensemble=ensemble)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
