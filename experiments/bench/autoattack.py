"""AutoAttack (standard, linf 2/255) on CNN-A: time of each attack against the passes it needs times the time of a pass.

With SPARTAX_DATA naming a folder with CIFAR-10 and the published weights, this is the evaluation of 256 real images
that takes the reference implementation 109 s on two CPU cores; without it, a random network on random images.
"""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.row import Row
from spartax import attacks, data, measure, models
from spartax.attacks import losses, network

EPS = 2 / 255


def rows(quick: bool) -> list[Row]:
    judged, x, y, what = _subject(16 if quick else 256)
    queries = 200 if quick else 5000
    version = "standard" if not quick else (attacks.apgd(EPS, steps=20), attacks.square(EPS, queries=queries))
    result = attacks.autoattack(EPS, version=version)(jax.random.key(0), judged, x, y)
    forward, backward = _pass_seconds(judged, x, y, 3 if quick else 10)
    clean, accuracy = result.clean_accuracy * len(y), result.accuracy_after
    found = []
    for name, seconds in result.seconds.items():
        counts = result.passes[name]
        ideal = counts[0] * forward + counts[1] * max(backward - forward, 0.0)
        left = accuracy.get(name, result.clean_accuracy)
        note = f"{counts[0]:,} forward, {counts[1]:,} backward; {left:.2%} left"
        found.append(_row(f"{what}: {name}", seconds, ideal, note))
    total = [sum(v) for v in zip(*result.passes.values())]
    ideal = total[0] * forward + total[1] * max(backward - forward, 0.0)
    seconds = sum(result.seconds.values())
    per_example = f"{total[0] / clean:,.0f} forward, {total[1] / clean:,.0f} backward a clean example"
    note = f"{len(y) / seconds:.3g} images/s, compilation included; {per_example}"
    return [*found, _row(f"{what}: all", seconds, ideal, note)]


def _row(name: str, seconds: float, ideal: float, note: str) -> Row:
    once = measure.Latency(seconds, seconds, seconds, 1)
    return Row(name, "passes x time of a pass", once, measure.Latency(ideal, ideal, ideal, 1), note)


def _subject(count: int):
    folder = os.environ.get("SPARTAX_DATA")
    if folder is None:
        module, x = models.CNNA(), jax.random.uniform(jax.random.key(0), (count, 32, 32, 3))
        variables = jax.jit(module.init)(jax.random.key(1), x[:1])
        judged = jax.tree_util.Partial(models.eval_apply(module), variables)
        return (
            judged,
            np.asarray(x),
            np.asarray(jnp.argmax(judged(x), axis=1), np.int32),
            f"random CNN-A, {count} images",
        )
    loaded = models.load(pathlib.Path(folder) / "weights" / "cifar10_linf_cnn_a_adv.safetensors")
    test = data.cifar10(f"test[:{count}]", data_dir=folder)
    return jax.tree_util.Partial(loaded.apply, loaded.variables), test.x, test.y, f"CNN-A, {count} CIFAR-10 images"


def _pass_seconds(judged, x, y, repeats: int) -> tuple[float, float]:
    """Seconds per image of a forward pass and of a forward and backward pass, at the batch size of the run."""
    fast = network.fast(judged)

    @jax.jit
    def forward(x):
        with jax.default_matmul_precision("highest"):
            return fast(x)

    gradient = jax.jit(jax.grad(lambda x: jnp.sum(losses.cross_entropy(forward(x), y))))
    times = measure.latency({"f": lambda: forward(x), "b": lambda: gradient(x)}, warmups=2, repeats=repeats)
    return times["f"].median / len(x), times["b"].median / len(x)
