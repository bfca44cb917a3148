"""Statistics, masks, factors and attacks of weights and batches on eight devices are those of one."""

import functools

import jax
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import spartax as sx
from spartax import attacks, catalog, lowrank, prune, quantize, sharding
from tests.sharded import APPLY, examples, placed, trained

LOSS = optax.softmax_cross_entropy_with_integer_labels
NEEDS = ("moments", "magnitudes", "signals")


@functools.cache
def given(many):
    """Trained params and two batches; on eight devices, both split."""
    params = jax.tree.map(np.asarray, trained(False)[0].variables)
    x, y = examples().x, examples().y
    batches = [(x[i : i + 16], y[i : i + 16]) for i in (0, 16)]
    if not many:
        return params, batches
    mesh, params = placed(params, "both")
    assert not params["first"].sharding.is_fully_replicated
    return params, [sharding.shard_batch(batch, mesh) for batch in batches]


@functools.cache
def compressed(transform, many):
    params, batches = given(many)
    return sx.compress(APPLY, params, transform, batches=batches, loss=LOSS, key=jax.random.key(0)).params


def test_collect_gives_the_same_statistics():
    one, eight = (sx.collect(APPLY, *given(many), NEEDS, loss=LOSS) for many in (False, True))
    assert set(one) == set(NEEDS)
    for need in NEEDS:
        assert set(one[need]) == {"first", "second"}
        for path, value in one[need].items():
            np.testing.assert_allclose(value, eight[need][path], rtol=1e-5, atol=1e-6)


OPTIONS = {
    "mad": {"attack": attacks.pgd(0.05, steps=2), "steps": 2},
    "synflow": {"rounds": 3},
    "woodfisher": {"block": 64},
}
SLOW = ("fisher", "grasp", "sparsegpt", "swap", "woodfisher")  # to compile
NAMES = [
    pytest.param(name, marks=[pytest.mark.nightly] * (name in SLOW))
    for name in (*catalog.names(prune.criteria), "swap")
]


def transform(name, sparsity):
    if name == "swap":
        return prune.swap(sparsity, rounds=3)
    return prune.prune(catalog.load(prune.criteria, name)(**OPTIONS.get(name, {})), sparsity)


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_the_same(name):
    """And the weights that are kept, where a method moves them."""
    pruning = transform(name, 0.6)
    one, eight = (compressed(pruning, many) for many in (False, True))
    for path in ("first", "second"):
        np.testing.assert_array_equal(sx.dense(one[path].mask), sx.dense(eight[path].mask))
        np.testing.assert_allclose(sx.dense(one[path]), sx.dense(eight[path]), rtol=1e-3, atol=1e-5)
    kept = [int(np.sum(sx.dense(one[path].mask))) for path in ("first", "second")]
    assert sum(kept) == round(0.4 * (16 * 32 + 32 * 3))


@pytest.mark.parametrize("factorization", [lowrank.svd(), lowrank.whitened()], ids=["svd", "whitened"])
def test_factors_are_the_same(factorization):
    """The whitened ones on the inputs there are: in directions that these lack, nothing decides."""
    transform, x = lowrank.factorize(factorization, lowrank.fixed(2)), examples().x[:32]
    one, eight = (compressed(transform, many) for many in (False, True))
    assert isinstance(one["first"], sx.LowRank)
    np.testing.assert_allclose(sx.dense(one["first"]), sx.dense(eight["first"]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(APPLY(one, x), APPLY(eight, x), rtol=1e-5, atol=1e-5)


def test_gptq_finds_the_same_codes():
    """Moments summed over the devices, and rows of a split weight; a code may be its neighbor where a sum is a half."""
    transform = quantize.quantize(quantize.integer(3), rounding=quantize.gptq(block=8))
    one, eight = (compressed(transform, many) for many in (False, True))
    nearest = compressed(quantize.quantize(quantize.integer(3)), False)
    for path in ("first", "second"):
        codes, split, near = (np.asarray(sx.dense(given[path].codes)) for given in (one, eight, nearest))
        assert np.mean(codes == split) > 0.99
        assert np.mean(codes == near) < 0.95
        np.testing.assert_allclose(one[path].scale, eight[path].scale, rtol=1e-6)


def on_images(params, x):
    return APPLY(params, x.reshape(len(x), -1))


def test_attacks_break_the_same_images():
    """Weights split over columns and images over rows; AutoAttack spreads its own batches over the same devices."""
    (params, _), (split, _) = given(False), given(True)
    x, y, key, mesh = examples().x[:40].reshape(40, 4, 4, 1), examples().y[:40], jax.random.key(1), sharding.mesh(2, 4)
    pgd = jax.jit(attacks.pgd(0.05, steps=4))
    one = pgd(key, Partial(on_images, params), x, y)
    eight = pgd(key, Partial(on_images, split), *sharding.shard_batch((x, y), mesh))
    np.testing.assert_allclose(one, eight, atol=1e-6)
    members = (attacks.apgd(0.05, steps=5), attacks.square(0.05, queries=5))
    judge = functools.partial(attacks.autoattack, 0.05, version=members, trust=False, verbose=False)
    one = judge()(key, Partial(on_images, params), x, y)
    eight = judge(devices=mesh.devices.ravel())(key, Partial(on_images, split), x, y)
    np.testing.assert_array_equal(one.robust, eight.robust)
    np.testing.assert_allclose(one.x_adv, eight.x_adv, atol=1e-6)
    assert 0 < one.robust_accuracy < one.clean_accuracy
