"""A training run with everything in its state; as a program, `run.py FOLDER STEP` kills itself during that step."""

import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import spartax as sx
from spartax import data, prune, train

KEY = jax.random.key(0)
STEPS = 48


def mlp(params, x):
    return jax.nn.relu(x[:, 0, 0] @ params["first"]) @ params["second"] + params["bias"]


def images():
    rng = np.random.default_rng(0)
    x = rng.random((40, 1, 1, 6), np.float32)
    y = (x[:, 0, 0].sum(1) > 3).astype(np.int32) + (x[:, 0, 0, 0] > 0.5)
    return data.Dataset(x, y, "made up", 3, ("a", "b", "c"))


def loss(network, key, x, y):
    return train.clean()(network, key, x + 0.1 * jax.random.normal(key, x.shape), y)


def score(variables):
    return -float(jnp.sum(variables["bias"] ** 2))


TX = optax.MultiSteps(optax.chain(optax.adam(1e-2), train.ema(0.9)), 2)
APPLY = sx.compressed(mlp)
TRANSFORM = prune.rigl(0.5, prune.uniform(), end=40, every=7)
STEP = train.make_step(loss, TX, APPLY)
REFRESH = train.make_refresh(TRANSFORM, loss, TX, APPLY)


def start(seed=0, tx=TX):
    rng = np.random.default_rng(seed)
    params = {"first": rng.normal(size=(6, 12)), "second": rng.normal(size=(12, 3)), "bias": np.zeros(3)}
    params = jax.tree.map(jnp.float32, params)
    variables, method = train.begin(TRANSFORM, APPLY, params, images().x, KEY)
    return train.init_state(variables, tx, method=method)


def run(folder=None, *, die=lambda step: None, config=None, every=5, state=None, logs=()):
    """The state and losses at the end; `die(step)` is called before each step."""

    def step(state, key, x, y):
        die(int(state.step))
        return STEP(state, key, x, y)

    keep = folder and train.checkpoints(folder, every=every, config=config or {"lr": 1e-2})
    batches = data.batches(images(), 5, KEY, epochs=STEPS // 8)
    return train.fit(
        step,
        start() if state is None else state,
        batches,
        KEY,
        refresh=REFRESH,
        validate=train.validation(score, every=6, weights=train.averaged),
        keep=keep,
        logs=logs,
        progress=False,
    )


def kill(at):
    def die(step):
        if step == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return die


if __name__ == "__main__":
    run(sys.argv[1], die=kill(int(sys.argv[2])))
