"""Sparse training: a step under masks, and a refresh of RigL, against a dense step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import spartax as sx
from experiments.bench.row import Row, compare
from spartax import models, prune, train

EVERY = 100


def rows(quick: bool) -> list[Row]:
    batch, repeats = (2, 2) if quick else (64, 15)
    depth = 8 if quick else 20
    module = models.resnet_cifar(depth)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((batch, 32, 32, 3), np.float32))
    y = jnp.asarray(rng.integers(0, 10, batch), jnp.int32)
    key = jax.random.key(0)
    variables = jax.jit(module.init)(key, x[:1])
    tx, loss = optax.sgd(0.1, 0.9, nesterov=True), train.clean()
    apply, forward = sx.compressed(models.eval_apply(module)), sx.compressed(train_apply(module))
    step = train.make_step(loss, tx, apply, forward)
    transform = prune.rigl(0.9, end=10**6, every=EVERY)
    masked, method = train.begin(transform, apply, variables, x[:1], key)
    refresh = train.make_refresh(transform, loss, tx, apply, forward)
    sparse, dense = Run(step, train.init_state(masked, tx, method=method)), Run(step, train.init_state(variables, tx))
    found = compare(
        f"ResNet-{depth}, batch {batch}, step",
        {"90 % masked": lambda: sparse(key, x, y), "dense": lambda: dense(key, x, y)},
        repeats=repeats,
        note="target: at most 5 % slower",
    )
    moving = functools.partial(refresh.update, sparse.state._replace(step=jnp.int32(EVERY)), key, x, y)
    once = compare(
        f"ResNet-{depth}, refresh of RigL",
        {"dense gradient, drop, grow": lambda: moving().trainable, "dense step": lambda: dense(key, x, y)},
        repeats=max(2, repeats // 5),
        note=f"once in {EVERY} steps",
    )
    return [found, once]


class Run:
    """A run that goes on: every call is one step from the state of the last, whose memory it takes."""

    def __init__(self, step, state):
        self.step, self.state = step, state

    def __call__(self, key, x, y):
        self.state, loss = self.step(self.state, key, x, y)
        return loss


def train_apply(module):
    return lambda variables, x: module.apply(variables, x, train=True, mutable=["batch_stats"])
