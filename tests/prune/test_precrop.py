"""PreCrop: densities by water-filling, and networks of the widths they ask for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import models, prune
from spartax.prune.precrop import densities
from tests.oracles import golden

KEY = jax.random.key(0)
COSTS = dict(zip("abcde", (432, 2304, 4608, 18432, 640)))


def test_golden_densities():
    np.testing.assert_allclose(list(densities(COSTS, 0.3).values()), golden.NUMBERS["precrop"]["p"])
    wide = densities(COSTS, 0.3, widen=True)
    np.testing.assert_allclose(list(wide.values()), golden.NUMBERS["precrop"]["p_unbounded"])


def test_optimal_among_all_densities_on_a_grid():
    costs = {"a": 1.0, "b": 5.0, "c": 20.0}
    found = densities(costs, 0.4)
    best = sum(np.log(p) for p in found.values())
    np.testing.assert_allclose(sum(found[path] * c for path, c in costs.items()), 0.4 * 26)
    for grid in itertools.product(np.linspace(0.02, 1, 50), repeat=3):
        if sum(p * c for p, c in zip(grid, costs.values())) <= 0.4 * 26:
            assert sum(np.log(grid)) <= best + 1e-9


def mlp(params, x):
    hidden = jax.nn.relu(x @ params["first"] + params["bias"])
    return jax.nn.relu(hidden @ params["second"]) @ params["third"]


def chain():
    rng = np.random.default_rng(0)
    shapes = {"first": (8, 40), "bias": (40,), "second": (40, 60), "third": (60, 4)}
    return {p: jnp.asarray(rng.normal(size=s), jnp.float32) for p, s in shapes.items()}


def test_a_chain_meets_its_budget_and_spends_it_where_it_is_cheap():
    params, x = chain(), jnp.asarray(np.random.default_rng(1).normal(size=(5, 8)), jnp.float32)
    small = prune.precrop(mlp, params, x, KEY, 0.5)
    total = sum(params[p].size for p in ("first", "second", "third"))
    sizes = {p: small.params[p].size for p in ("first", "second", "third")}
    assert 0.47 * total <= sum(sizes.values()) <= 0.5 * total
    one, two = small.widths["first"], small.widths["second"]
    assert small.params["second"].shape == (one, two)
    assert small.params["bias"].shape == (one,)
    kept = {path: sizes[path] / params[path].size for path in sizes}
    assert kept["second"] < 0.7 * min(kept["first"], kept["third"])
    np.testing.assert_allclose(small.apply(small.params, x), mlp(small.params, x), rtol=1e-5)
    columns = {tuple(c) for c in np.asarray(params["first"]).T}
    assert {tuple(c) for c in np.asarray(small.params["first"]).T} < columns  # some of the channels, unchanged
    other = prune.precrop(mlp, params, x, jax.random.key(1), 0.5)
    assert other.widths == small.widths
    assert np.any(np.asarray(other.params["bias"] != small.params["bias"]))


def test_residual_blocks_are_cropped_inside_and_multiply_adds_can_be_the_cost():
    module = models.resnet8()
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, KEY, jnp.zeros((1, 16, 16, 3)))
    variables = jax.tree.map(lambda s: jnp.asarray(rng.random(s.shape), s.dtype), shapes)
    small = prune.precrop(models.eval_apply(module), variables, x, KEY, 0.4, cost="macs", round_to=2)
    before, after = small.report.macs
    assert 0.5 < after / before <= 0.6
    assert set(small.widths) == {f"params/layer{i}_0/conv1/kernel" for i in (1, 2, 3)}
    for i, width in ((1, 16), (2, 32), (3, 64)):
        block = small.params["params"][f"layer{i}_0"]
        assert block["conv1"]["kernel"].shape[3] == small.widths[f"params/layer{i}_0/conv1/kernel"] < width
        assert block["conv2"]["kernel"].shape[3] == width
        assert small.widths[f"params/layer{i}_0/conv1/kernel"] % 2 == 0
    assert jax.eval_shape(small.apply, small.params, x).shape == (1, 10)


def test_bad_arguments():
    params, x = chain(), jnp.ones((1, 8))
    with pytest.raises(ValueError, match=r"sparsity must be in \[0.0, 1.0\); got 1.0"):
        prune.precrop(mlp, params, x, KEY, 1.0)
    with pytest.raises(ValueError, match="cost must be one of 'params', 'macs'; got 'bytes'"):
        prune.precrop(mlp, params, x, KEY, cost="bytes")
    with pytest.raises(ValueError, match=r"names must be one of .*'first'"):
        prune.precrop(mlp, params, x, KEY, names=["firsd"])
    with pytest.raises(ValueError, match="names: the channels of third cannot be removed: output of the model"):
        prune.precrop(mlp, params, x, KEY, names=["third"])
    with pytest.raises(ValueError, match="the narrowest network costs"):
        prune.precrop(mlp, params, x, KEY, 0.999, names=["first"])
    with pytest.raises(ValueError, match="no group of channels"):
        prune.precrop(lambda p, x: x @ p["w"], {"w": jnp.ones((8, 4))}, x, KEY)
    assert sx.groups(mlp, params, x)["third"].frozen
