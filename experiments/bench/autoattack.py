"""AutoAttack (standard, linf 2/255) on CNN-A: time of each attack against the passes it needs times the time of a pass.

With SPARTAX_DATA naming a folder with CIFAR-10 and the published weights, this is the evaluation of 256 real images
that takes the reference implementation 109 s on two CPU cores; without it, a random network on random images. It is run
twice: the second run compiles nothing and is the one that is timed, the first says what compilation takes.
"""

import os
import pathlib
import resource

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.row import Row
from spartax import attacks, data, measure, models
from spartax.attacks import losses, network, versions

EPS = 2 / 255
REFERENCE = 7884, 1910  # passes of the reference implementation for an example that stays robust


def rows(quick: bool) -> list[Row]:
    judged, x, y, what = _subject(16 if quick else 256)
    version = "standard" if not quick else (attacks.apgd(EPS, steps=20), attacks.square(EPS, queries=200))
    evaluate = attacks.autoattack(EPS, version=version)
    first, result = (evaluate(jax.random.key(0), judged, x, y) for _ in range(2))
    forward, backward = _pass_seconds(judged, x, y, 3 if quick else 10)

    def row(name: str, seconds: float, compiled: float, counts: tuple[int, int], note: str) -> Row:
        ideal = counts[0] * forward + counts[1] * max(backward - forward, 0.0)
        took, needed = (measure.Latency(value, value, value, 1) for value in (seconds, ideal))
        note = (
            f"{note}; {len(y) / seconds:,.3g} images/s; {compiled:.1f} s to compile; overhead {seconds / ideal - 1:.0%}"
        )
        return Row(f"{what}: {name}", "passes x time of a pass", took, needed, note)

    found = []
    for name, counts in result.passes.items():
        if name in result.seconds:
            left = result.accuracy_after.get(name, result.clean_accuracy)
            note = f"{counts[0]:,} forward, {counts[1]:,} backward; {left:.2%} left"
            seconds = result.seconds[name]
            found.append(row(name, seconds, first.seconds[name] - seconds, counts, note))
    total = sum(f for f, _ in result.passes.values()), sum(b for _, b in result.passes.values())
    seconds = sum(result.seconds.values())
    note = f"{_survivor(classes=10)}; peak memory {_peak() / 2**20:,.0f} MB"
    return [*found, row("all", seconds, sum(first.seconds.values()) - seconds, total, note)]


def _survivor(classes: int) -> str:
    """Passes of an example that stays robust, with the clean pass."""
    members, _ = versions.members("standard", EPS, "linf", classes, parity=False)
    steps = [(a.runs(classes) * a.steps, a) for a in members]
    forward, backward = 1 + sum(n * a.forwards for n, a in steps), sum(n * a.backwards for n, a in steps)
    return (
        f"a survivor takes {forward:,} forward (reference {REFERENCE[0]:,}), {backward:,} backward ({REFERENCE[1]:,})"
    )


def _peak() -> int:
    """Bytes of device memory at the peak; of the process where the device does not count them."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _subject(count: int):
    folder = os.environ.get("SPARTAX_DATA")
    if folder is None:
        module, x = models.CNNA(), jax.random.uniform(jax.random.key(0), (count, 32, 32, 3))
        variables = jax.jit(module.init)(jax.random.key(1), x[:1])
        judged = jax.tree_util.Partial(models.eval_apply(module), variables)
        y = np.asarray(jnp.argmax(judged(x), axis=1), np.int32)
        return judged, np.asarray(x), y, f"random CNN-A, {count} images"
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
