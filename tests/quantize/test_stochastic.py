import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import quantize
from spartax.quantize.codes import between, decode, encode
from spartax.quantize.records import Part, Scales
from spartax.records import Evidence, Layout
from tests import plugs

DENSE = Layout((0,), (1,))
GRIDS = {
    "int3": quantize.integer(3),
    "float zero": quantize.integer(3, symmetric=False, zero_dtype="float32"),
    "int8 zero": quantize.integer(3, symmetric=False),
    "mxfp4": quantize.mx(group=8),
    "nf4": quantize.nf4(),
    "power of two": quantize.power_of_two(),
}


def part(key):
    return Part("w", DENSE, Evidence({"w": DENSE}, key=key))


@pytest.mark.parametrize("name", GRIDS)
def test_unbiased_between_the_two_codes_around(name):
    """The mean of 4096 draws is the weight, to five standard deviations; every draw is one of two neighbors."""
    grid, weight = GRIDS[name], jnp.asarray(np.random.default_rng(0).uniform(-0.7, 0.9, (8, 6)), jnp.float32)
    scales = quantize.absmax().fit(weight, grid, part(None))
    draw = lambda key: decode(quantize.stochastic().round(weight, scales, grid, part(key)), scales, grid)  # noqa: E731
    draws = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4096)), np.float64)
    below, above, share = between(weight, scales, grid)
    low, high = (np.asarray(decode(c, scales, grid), np.float64) for c in (below, above))
    assert ((draws == low) | (draws == high)).all()
    inside = np.asarray(share) > 0
    spread = (high - low) * np.sqrt(np.asarray(share) * (1 - np.asarray(share)) / 4096)
    assert inside.mean() > 0.7
    assert (np.abs(draws.mean(0) - weight)[inside] <= 5 * spread[inside] + 1e-5).all()
    nearest = np.asarray(decode(encode(weight, scales, grid), scales, grid))
    assert (np.abs(nearest - weight)[inside] > 5 * spread[inside] + 1e-5).mean() > 0.5  # so nearest would fail


def test_codes_around_known_answers():
    """Levels 0, 1, 2, 4 of signed powers of two; beyond the last there is only the last."""
    weight = jnp.asarray([[2.5, -3.0, 4.0, 9.0, -9.0, 0.0, -0.25]])
    grid = quantize.power_of_two(3)
    below, above, share = between(weight, Scales(jnp.ones((1, 1)), None), grid)
    np.testing.assert_array_equal(below, [[2, -3, 3, 3, -3, 0, -1]])
    np.testing.assert_array_equal(above[0, [0, 1, 6]], [3, -2, 0])
    np.testing.assert_allclose(share, [[0.25, 0.5, 0, 0, 0, 0, 0.75]])


def test_draws_depend_on_key_and_path_alone():
    weights = {p: jnp.asarray(np.full((24, 20), 0.3) + np.eye(24, 20), jnp.float32) for p in ("dense", "other")}
    layouts = {"dense": DENSE, "other": DENSE}
    method = quantize.quantize(quantize.integer(2), rounding=quantize.stochastic())

    def codes(paths, seed):
        given = Evidence({p: layouts[p] for p in paths}, key=jax.random.key(seed))
        params, _ = plugs.run(method, {p: weights[p] for p in paths}, given)
        return {p: np.asarray(plugs.dense(params[p])) for p in paths}

    both, alone = codes(("dense", "other"), 0), codes(("other",), 0)
    np.testing.assert_array_equal(both["other"], alone["other"])
    assert (both["dense"] != both["other"]).mean() > 0.2
    assert (codes(("other",), 1)["other"] != alone["other"]).mean() > 0.2


def test_factors_of_one_weight_draw_apart():
    given = Evidence({"w": DENSE}, key=jax.random.key(0))
    square = jnp.asarray(0.3 * np.ones((16, 16)) + np.eye(16), jnp.float32)
    same = {"w": sx.LowRank(square, square)}
    params, _ = plugs.run(quantize.quantize(quantize.integer(2), rounding=quantize.stochastic()), same, given)
    assert (plugs.dense(params["w"].left) != plugs.dense(params["w"].right)).mean() > 0.2


def test_a_key_is_needed():
    with pytest.raises(ValueError, match="key is needed"):
        plugs.run(
            quantize.quantize(quantize.integer(4), rounding=quantize.stochastic()),
            {"w": jnp.ones((4, 2))},
            Evidence({"w": DENSE}),
        )
