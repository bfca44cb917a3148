"""What every attack obeys. Attacks are found by file name: a public factory of that name that takes `eps` first."""

import functools
import importlib
import inspect
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import attacks
from spartax.attacks import threats
from tests.attacks import nets

# Fewer iterations than the defaults, for attacks whose defaults take long; new attacks need no entry.
FEWER = {
    "apgd": {"steps": 20},
    "apgd_targeted": {"steps": 20},
    "cw": {"steps": 100},
    "fab": {"steps": 20},
    "pgd": {"steps": 20},
    "square": {"queries": 30},
}
RANDOM_SEARCH = {"square"}  # need not find what can be found


def find():
    """name -> factory of every attack file."""
    found = {}
    for path in sorted(pathlib.Path(attacks.__path__[0]).glob("*.py")):
        factory = getattr(importlib.import_module(f"spartax.attacks.{path.stem}"), path.stem, None)
        if inspect.isfunction(factory) and next(iter(inspect.signature(factory).parameters), "") == "eps":
            found[path.stem] = factory
    del found["autoattack"]  # gives a result, not an image
    return found


FACTORIES = find()
LOGITS_FN, WEIGHT, X, Y = nets.linear(classes=2)
KEY = jax.random.key(0)
MESH, BATCH = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("batch",)), jax.sharding.PartitionSpec("batch")


def build(name, norm, eps):
    try:
        return FACTORIES[name](eps, norm, **FEWER.get(name, {}))
    except ValueError as error:
        if "norm" not in str(error):
            raise
        return None


CASES = [(name, norm) for name in FACTORIES for norm in threats.NORMS if build(name, norm, 0.1) is not None]


def reach(norm):
    """How far each image is from the boundary."""
    logits = np.asarray(LOGITS_FN(X), np.float64)
    slope = np.asarray(WEIGHT[:, 0] - WEIGHT[:, 1], np.float64)
    return np.abs(logits[:, 0] - logits[:, 1]) / np.linalg.norm(slope, {"linf": 1, "l2": 2, "l1": np.inf}[norm])


@functools.cache
def runner(name, norm, eps):
    attack = build(name, norm, eps)
    return jax.jit(lambda key, x, y, index: attack(key, LOGITS_FN, x, y, index=index))


def radius(norm):
    """A radius that breaks about half of the images."""
    return float(np.median(reach(norm)))


@functools.cache
def attacked(name, norm):
    return np.asarray(runner(name, norm, radius(norm))(KEY, X, Y, jnp.arange(8)))


def test_the_known_attacks_are_found():
    assert {"apgd", "apgd_targeted", "cw", "fab", "fgsm", "pgd", "square"} <= set(FACTORIES)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_images_stay_in_ball_and_box(name, norm):
    x_adv = attacked(name, norm)
    assert x_adv.shape == X.shape
    assert x_adv.dtype == np.float32
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert float(threats.lengths(x_adv - X, norm).max()) <= radius(norm) + 1e-6


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_a_linear_model_breaks_where_its_boundary_is_near_and_only_there(name, norm):
    broken = np.asarray(jnp.argmax(LOGITS_FN(attacked(name, norm)), 1) != Y)
    distance, eps = reach(norm), radius(norm)
    assert not np.any(broken[distance > eps * (1 + 1e-5)])
    if name not in RANDOM_SEARCH:
        assert np.all(broken[distance < 0.8 * eps])


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_rows_depend_on_themselves_only(name, norm):
    call, x_adv = runner(name, norm, radius(norm)), attacked(name, norm)
    order = jnp.array([3, 1, 7, 0, 2, 6, 4, 5])
    np.testing.assert_array_equal(call(KEY, X[order], Y[order], order), x_adv[order])
    # The first four beside four others.
    others = jnp.concatenate([X[:4], 1 - X[4:]])
    labels = jnp.concatenate([Y[:4], 1 - Y[4:]])
    np.testing.assert_array_equal(call(KEY, others, labels, jnp.arange(8))[:4], x_adv[:4])


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_same_key_same_images(name, norm):
    np.testing.assert_array_equal(runner(name, norm, radius(norm))(KEY, X, Y, jnp.arange(8)), attacked(name, norm))


@pytest.mark.parametrize("name", FACTORIES)
def test_radius_zero_gives_the_clean_image(name):
    norm = next(norm for other, norm in CASES if other == name)
    np.testing.assert_array_equal(runner(name, norm, 0.0)(KEY, X, Y, jnp.arange(8)), X)


@pytest.mark.nightly
@pytest.mark.parametrize("name", FACTORIES)
def test_without_jit_and_without_index_the_same(name):
    norm = next(norm for other, norm in CASES if other == name)
    eager = build(name, norm, radius(norm))(KEY, LOGITS_FN, X, Y)
    np.testing.assert_allclose(eager, attacked(name, norm), atol=1e-6)


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_eight_devices_give_what_one_gives(name, norm):
    x, y, index = jax.device_put((X, Y, jnp.arange(8)), jax.sharding.NamedSharding(MESH, BATCH))
    found, alone = np.asarray(runner(name, norm, radius(norm))(KEY, x, y, index)), attacked(name, norm)
    # The split program rounds differently. Sign steps forget that; steps along the gradient itself carry it on.
    np.testing.assert_allclose(found, alone, atol=1e-6 if norm == "linf" else 1e-4)
    np.testing.assert_array_equal(LOGITS_FN(found).argmax(1), LOGITS_FN(alone).argmax(1))


def some(marked):
    """Every attack at night, these two always."""
    return [pytest.param(name, marks=() if name in marked else pytest.mark.nightly) for name in FACTORIES]


@pytest.mark.parametrize("name", some({"apgd"}))
def test_works_on_a_mesh_with_explicit_axes(name):
    """Images and weights lie on the mesh, inside jit and outside."""
    norm = next(norm for other, norm in CASES if other == name)
    attack, mesh = build(name, norm, radius(norm)), jax.make_mesh((8,), ("batch",), (jax.sharding.AxisType.Explicit,))
    x, y, index = jax.device_put((X, Y, jnp.arange(8)), jax.sharding.NamedSharding(mesh, BATCH))
    weight = jax.device_put(WEIGHT, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    logits_fn = jax.tree_util.Partial(lambda w, x: (x.reshape(x.shape[0], -1) - 0.5) @ w, weight)
    found = jax.jit(lambda f, x, y, index: attack(KEY, f, x, y, index=index))(logits_fn, x, y, index)
    assert jax.typeof(found).sharding == jax.typeof(x).sharding
    np.testing.assert_allclose(found, attacked(name, norm), atol=1e-6)
    with pytest.raises(ValueError, match="x must lie in"):
        attack(KEY, logits_fn, x + 1, y, index=index)


@pytest.mark.parametrize("name", some({"pgd"}))
@pytest.mark.parametrize("check", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_works_under_shard_map(name, check):
    norm = next(norm for other, norm in CASES if other == name)
    attack = build(name, norm, radius(norm))
    split = jax.shard_map(
        lambda x, y, index: attack(KEY, LOGITS_FN, x, y, index=index),
        mesh=MESH,
        in_specs=BATCH,
        out_specs=BATCH,
        check_vma=check,
    )
    np.testing.assert_allclose(jax.jit(split)(X, Y, jnp.arange(8)), attacked(name, norm), atol=1e-6)


@pytest.mark.nightly
@pytest.mark.parametrize("name", FACTORIES)
def test_what_breaks_at_a_radius_breaks_at_a_larger_one(name):
    logits_fn, x, y = nets.two_layers()
    norm = next(norm for other, norm in CASES if other == name)
    broken = []
    for eps in (0.0, 0.01, 0.03, 0.1):
        attack = build(name, norm, eps if norm == "linf" else 10 * eps)
        broken.append(np.asarray(jnp.argmax(logits_fn(nets.run(attack, logits_fn, x, y)), 1) != y))
    assert not broken[0].any()
    assert all(np.all(more >= less) for less, more in itertools.pairwise(broken))
