"""Many devices: a training step and an attack on 2, 4 and 8 virtual devices of one CPU; overhead only."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from experiments.bench.row import Row, compare
from spartax import attacks, measure, sharding, train

COUNTS = (2, 4, 8)
NOTE = "the devices share the cores of one CPU, so 1.0x is no overhead"


def rows(quick: bool) -> list[Row]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={COUNTS[-1]}"
    call = [sys.executable, "-m", __spec__.name, *(["--quick"] if quick else [])]
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    told = subprocess.run(call, env=env, stdout=subprocess.PIPE, check=True, text=True).stdout
    return [_row(json.loads(line)) for line in told.splitlines()]


def _row(fields: dict) -> Row:
    time, base = (measure.Latency(*fields[name]) for name in ("time", "base"))
    return Row(fields["name"], fields["baseline"], time, base, fields["note"])


def timed(quick: bool) -> list[Row]:
    """In a process that has the devices."""
    width, batch, repeats = (64, 16, 2) if quick else (1024, 512, 9)
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=(width, width)) / width**0.5, jnp.float32) for name in "abc"}
    x, y = rng.random((batch, width), np.float32), rng.integers(0, width, batch).astype(np.int32)
    found = []
    for over in ("replicated", "split"):
        runs = {count: _Run(count, over, params, x, y) for count in (1, *COUNTS)}
        for name in ("step", "attack"):
            title = f"MLP of 3 x {width}, batch {batch}, {name}, weights {over}"
            for count in COUNTS:
                pair = {f"{count} devices": getattr(runs[count], name), "1 device": getattr(runs[1], name)}
                found.append(compare(title, pair, repeats=repeats, note=NOTE))
    return found


def _apply(params, x):
    for w in params.values():
        x = jax.nn.relu(x @ w)
    return x


TX, KEY = optax.sgd(1e-3, 0.9), jax.random.key(0)
STEP = train.make_step(train.clean(), TX, _apply)
PGD = jax.jit(attacks.pgd(0.03, steps=5))


class _Run:
    """State, batch and attacked network on so many devices."""

    def __init__(self, count, over, params, x, y):
        mesh = sharding.mesh(devices=jax.devices()[:count])
        place = sharding.replicate if over == "replicated" else _split
        self.batch = sharding.shard_batch((x, y), mesh)
        self.state, self.network = place(train.init_state(params, TX), mesh), Partial(_apply, place(params, mesh))

    def step(self):
        self.state, loss = STEP(self.state, KEY, *self.batch)
        return loss

    def attack(self):
        return PGD(KEY, self.network, *self.batch)


def _split(tree, mesh):
    return sharding.shard_params(tree, mesh, min_size=2**10, over="data")


if __name__ == "__main__":
    for row in timed("--quick" in sys.argv):
        print(json.dumps(row._asdict()))
