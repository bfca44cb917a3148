"""A training run on any mesh; as a program, one of two processes that share it."""

import functools
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import spartax as sx
from spartax import attacks, checkpoint, data, prune, sharding, train

APPLY = sx.compressed(lambda params, x: jax.nn.relu(x @ params["first"]) @ params["second"] + params["bias"])
TX = optax.adam(1e-2)
GRIDS = {"data": (8, 1, {}), "both": (2, 4, {"over": "model"}), "fully sharded": (8, 1, {"over": "data"})}


@functools.cache
def examples():
    rng = np.random.default_rng(0)
    x = rng.random((48, 16), np.float32)
    return data.Dataset(x, (x.sum(1) > 8).astype(np.int32) + (x[:, 0] > 0.5), "made up", 3, ("a", "b", "c"))


@functools.cache
def dense_params():
    rng = np.random.default_rng(1)
    params = {"first": rng.normal(size=(16, 32)) / 4, "second": rng.normal(size=(32, 3)), "bias": np.zeros(3)}
    return jax.tree.map(jnp.float32, params)


def placed(tree, grid):
    """The mesh, and the tree as this grid has it: whole everywhere, or split from 64 entries on."""
    rows, columns, options = GRIDS[grid]
    mesh = sharding.mesh(rows, columns)
    return mesh, sharding.shard_params(tree, mesh, min_size=64, **options) if options else sharding.replicate(
        tree, mesh
    )


def noisy(network, key, x, y):
    return train.clean()(network, key, x + 0.1 * jax.random.normal(key, x.shape), y)


@functools.cache
def method():
    transform = prune.rigl(0.5, prune.uniform(), end=6, every=2)
    return transform, train.make_refresh(transform, noisy, TX, APPLY)


def start(masked):
    if not masked:
        return train.init_state(dense_params(), TX)
    variables, begun = train.begin(method()[0], APPLY, dense_params(), examples().x, jax.random.key(0))
    return train.init_state(variables, TX, method=begun)


@functools.cache
def trained(masked, grid=None):
    """Six steps; the state and losses, and how often the step was traced."""
    state, traces = start(masked), []
    mesh, state = (None, state) if grid is None else placed(state, grid)

    def counted(*given):
        traces.append(1)
        return noisy(*given)

    return *run(train.make_step(counted, TX, APPLY), state, mesh, masked), len(traces)


def run(step, state, mesh, masked, count=6, keep=None, logs=()):
    key = jax.random.key(0)
    batches = data.batches(examples(), 16, key, epochs=2)
    refresh = method()[1] if masked else None
    batches = [batches[number] for number in range(count)]
    return train.fit(step, state, batches, key, mesh=mesh, refresh=refresh, keep=keep, logs=logs, progress=False)


class Normed(nn.Module):
    """A convolution, batch normalization, and a head of three classes."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Conv(8, (3, 3))(x))
        return nn.Dense(3)(jnp.mean(nn.softplus(x), axis=(1, 2)))


ATTACKED = {"pgd_at": train.pgd_at(attacks.pgd(0.05, steps=2)), "aaer": train.aaer(0.05)}


def attacked(loss, grid=None):
    """Three steps of a network with batch normalization under an attack; the state and losses."""
    net, rng, tx = Normed(), np.random.default_rng(0), optax.sgd(0.1, 0.9)
    train_apply = lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"])  # noqa: E731
    step = train.make_step(ATTACKED[loss], tx, net.apply, train_apply)
    x = rng.random((3, 16, 6, 6, 3), np.float32)
    state = train.init_state(net.init(jax.random.key(0), x[0]), tx)
    mesh, state = (None, state) if grid is None else placed(state, grid)
    batches = list(zip(x, rng.integers(0, 3, (3, 16)).astype(np.int32)))
    return train.fit(step, state, batches, jax.random.key(1), mesh=mesh, progress=False)


def at_once_and_interrupted(masked, folder):
    """Two ways of six steps on all devices: at once, and stopped after four, to go on from the checkpoint."""
    keep = train.checkpoints(folder, every=2, config={})
    step = train.make_step(noisy, TX, APPLY)
    mesh = sharding.mesh()
    begin = lambda: placed(start(masked), "fully sharded")[1]  # noqa: E731
    at_once = run(step, begin(), mesh, masked)
    logs = [train.json_lines(f"{folder}.jsonl")]
    run(step, begin(), mesh, masked, 4, keep, logs)
    return at_once, run(step, begin(), mesh, masked, 6, keep, logs)


def everything(state):
    return state.trainable, state.fixed, state.opt_state


if __name__ == "__main__":
    port, process, masked, file, folder = sys.argv[1:]
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(process))
    checkpoint.OWN_BYTES = 2**10  # an array of its own for the first layer
    for name, (state, losses) in zip(("at once", "again"), at_once_and_interrupted(masked == "masked", folder)):
        whole = sharding.replicate(everything(state), sharding.mesh())
        np.savez(f"{file}.{name}.npz", *jax.tree.leaves(whole), losses=losses, devices=len(jax.local_devices()))
