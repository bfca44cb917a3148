"""A checkpoint of one number of devices goes on on another."""

import jax
import numpy as np
import pytest

import spartax as sx
from spartax import sharding, train
from tests.sharded import APPLY, TX, noisy, run, start

STEP = train.make_step(noisy, TX, APPLY)


def on(devices, tree, min_size=64):
    """The mesh of this many devices, and the tree spread over it."""
    mesh = sharding.mesh(devices=jax.devices()[:devices])
    return mesh, sharding.shard_params(tree, mesh, min_size=min_size, over="data")


@pytest.mark.parametrize(("first", "then"), [(1, 8), pytest.param(8, 2, marks=pytest.mark.nightly)])
def test_training_goes_on_on_another_number_of_devices(first, then, tmp_path):
    """Weights, masks, which are refreshed after the interruption, and moments are those of a run on one device."""
    keep = train.checkpoints(tmp_path / "run", every=2, config={})
    for devices, count in ((first, 2), (then, 4)):
        mesh, state = on(devices, start(True))
        state, losses = run(STEP, state, mesh, True, count, keep)
        assert state.trainable["first"].weight.sharding.device_set == set(jax.devices()[:devices])
    mesh, whole = on(1, start(True))
    expected, all_losses = run(STEP, whole, mesh, True, 4)
    assert np.any(np.asarray(start(True).fixed["first"].mask) != expected.fixed["first"].mask)
    np.testing.assert_allclose(losses, all_losses, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state.fixed, expected.fixed)
    for part in ("trainable", "opt_state"):
        for a, b in zip(jax.tree.leaves(getattr(state, part)), jax.tree.leaves(getattr(expected, part)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("first", "then"), [(8, 1), (8, 2), (1, 8)])
def test_large_arrays_are_restored_bit_by_bit(first, then, tmp_path):
    weight = np.random.default_rng(0).normal(size=(160, 128)).astype(np.float32)
    assert weight.nbytes > 2**16  # stored by itself
    tree = {"w": sx.Masked(mask=weight > 0, weight=weight), "b": weight[0]}
    _, placed = on(first, tree, 2**10)
    sx.save(tmp_path / "saved", placed)
    _, again = on(then, sx.restore(tmp_path / "saved"), 2**10)
    assert [len(x.sharding.device_set) for x in jax.tree.leaves(again)] == [then] * 3
    assert again["w"].weight.sharding.is_fully_replicated == (then == 1)
    jax.tree.map(np.testing.assert_array_equal, again, tree)
