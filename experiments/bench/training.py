"""Training: steps against the passes they need, compile time, peak memory."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench.row import Row, compare
from spartax import attacks, measure, models, train

EPS = 8 / 255


def rows(quick: bool) -> list[Row]:
    batch, repeats = (2, 2) if quick else (64, 5)
    module = models.resnet_cifar(8)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((batch, 32, 32, 3), np.float32))
    y = jnp.asarray(rng.integers(0, 10, batch), jnp.int32)
    tx, key = optax.sgd(0.01, 0.9), jax.random.key(0)
    state = train.init_state(jax.jit(module.init)(key, x[:1]), tx)
    forward = _train_apply(module)
    make = functools.partial(train.make_step, tx=tx, apply=models.eval_apply(module))
    losses = {
        "standard": train.clean(),
        "FGSM-RS": train.fgsm_rs(EPS),
        "PGD-10": train.pgd_at(attacks.pgd(EPS, steps=10)),
    }
    name = f"ResNet-8, batch {batch}"
    # keeps convolutions and computes normalizations and activations again; XLA on CPU saves no memory by it
    remat = make(losses["standard"], train_apply=jax.checkpoint(forward, policy=_is_convolution))
    steps = {title: make(loss, train_apply=forward) for title, loss in losses.items()} | {"remat": remat}
    built = {title: _compiled(step, state, key, x, y) for title, step in steps.items()}
    runs = {title: _Run(step, jax.tree.map(jnp.array, state), (key, x, y)) for title, (step, _) in built.items()}
    found = [
        _against(name, runs, "FGSM-RS", 2, batch, repeats, "2 passes each way"),
        _against(name, runs, "PGD-10", 11, batch, repeats, "11 passes each way, 1 forward; target: at most 1.1x"),
    ]
    found += [_compile_times(name, title, built) for title in ("FGSM-RS", "PGD-10")]
    (low, _), (high, spared) = (_memory(built[title][0]) for title in ("remat", "standard"))
    note = f"peak memory {low:.1f} against {high:.1f} MiB; donation spares {spared:.1f} MiB of both"
    return [*found, compare(f"{name}, standard", _pair(runs, "remat", 1), repeats=repeats, note=note)]


class _Run:
    """A run that goes on: every call is one step from the state of the last, whose memory it takes."""

    def __init__(self, step, state, batch):
        self.step, self.state, self.batch = step, state, batch

    def __call__(self):
        self.state, loss = self.step(self.state, *self.batch)
        return loss


def _pair(runs, title, count):
    """A step of this kind, and the standard steps with as many passes."""
    standard = f"{count} standard steps"
    return {title: runs[title], standard: lambda: [runs["standard"]() for _ in range(count)]}


def _against(name, runs, title, count, batch, repeats, note):
    row = compare(f"{name}, step", _pair(runs, title, count), repeats=repeats, note=note)
    rates = f"{batch / row.time.median:.0f} images/s, standard {batch * count / row.base.median:.0f}"
    return row._replace(note=f"{rates}; {row.note}")


def _compiled(step, *args):
    start = time.perf_counter()
    return jax.jit(step, donate_argnums=0).lower(*args).compile(), time.perf_counter() - start


def _compile_times(name, title, built):
    times = [measure.Latency(seconds, seconds, seconds, 1) for seconds in (built[title][1], built["standard"][1])]
    return Row(f"{name}, trace and compile: {title}", "standard", *times, note="once")


def _memory(compiled):
    """MiB of arguments, results and temporaries, and of those results that reuse the memory of arguments."""
    found = compiled.memory_analysis()
    total = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return (total - found.alias_size_in_bytes) / 2**20, found.alias_size_in_bytes / 2**20


def _is_convolution(primitive, *_, **__):
    return primitive.name == "conv_general_dilated"


def _train_apply(module):
    return lambda variables, x: module.apply(variables, x, train=True, mutable=["batch_stats"])
