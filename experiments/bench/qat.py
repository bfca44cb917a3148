"""Training under fake quantization: a step of LSQ, weights alone and with activations, against a float step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import spartax as sx
from experiments.bench.row import Row, compare
from experiments.bench.sparse_training import Run, train_apply
from spartax import models, quantize, train


def rows(quick: bool) -> list[Row]:
    batch, repeats = (2, 2) if quick else (64, 9)
    name, module = ("CNN", models.CNN((4,), 8)) if quick else ("ResNet-20", models.resnet_cifar(20))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((batch, 32, 32, 3), np.float32))
    y = jnp.asarray(rng.integers(0, 10, batch), jnp.int32)
    key = jax.random.key(0)
    variables = jax.jit(module.init)(key, x[:1])
    forward = train_apply(module)
    # activations as training sees them: nobody trained the running statistics of evaluation
    apply = lambda variables, x: forward(variables, x)[0]  # noqa: E731
    tx = optax.sgd(0.01, 0.9)
    step = train.make_step(train.clean(), tx, sx.compressed(apply), sx.compressed(forward))
    exact = Run(step, train.init_state(variables, tx))
    found = []
    for title, activations in {"4-bit weights": None, "4-bit weights and activations": 4}.items():
        given = sx.compress(apply, variables, quantize.lsq(4, activations=activations), batches=[x])
        rounded = Run(step, train.init_state(given.params, tx))
        timed = {title: lambda run=rounded: run(key, x, y), "float": lambda: exact(key, x, y)}
        note = "target: at most 1.3 times slower"
        found.append(compare(f"{name}, batch {batch}, step", timed, repeats=repeats, note=note))
    return found
