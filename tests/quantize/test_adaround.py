import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import quantize
from spartax.quantize.codes import decode
from spartax.records import Layout
from tests.oracles import adaround as oracle
from tests.quantize.layers import better, encode, layer, loss_of, part

INT3 = quantize.integer(3, symmetric=False)
GRIDS = {"integer": INT3, "groups": quantize.integer(3, 5), "nf4": quantize.nf4(10), "fp8": quantize.fp8()}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_loses_less_than_nearest_on_any_grid(grid):
    kernel, moments = layer()
    codes, scales, notes = encode(quantize.adaround(), kernel, grid, part(moments))
    nearest = quantize.nearest().round(jnp.asarray(kernel), scales, grid, part(moments))
    np.testing.assert_allclose(notes["layer_loss"], loss_of(codes, scales, grid, kernel, moments), rtol=1e-3)
    np.testing.assert_allclose(notes["nearest_loss"], loss_of(nearest, scales, grid, kernel, moments), rtol=1e-3)
    np.testing.assert_allclose(notes["moved"], np.mean(np.asarray(codes) != np.asarray(nearest)), rtol=1e-5)
    assert notes["layer_loss"] < 0.5 * notes["nearest_loss"]
    assert 0.05 < notes["moved"] < 0.3


def test_against_the_same_descent_in_numpy():
    kernel, moments = layer()
    codes, scales, _ = encode(quantize.adaround(300, 0.05, 2.0), kernel, INT3, part(moments))
    scale, zero = (np.asarray(a, np.float64).T for a in (scales.scale, scales.zero))
    expected = oracle.codes(kernel.T, moments, scale, zero, INT3.codes, steps=300, lr=0.05, penalty=2.0)
    np.testing.assert_array_equal(codes, better(expected.T, scales, INT3, kernel, moments))
    assert np.mean(expected == np.asarray(codes).T) > 0.9


def test_every_entry_goes_to_a_level_next_to_it():
    """Levels around each entry, found by looking at all of them."""
    kernel, moments = layer()
    for grid in (INT3, quantize.nf4(10), quantize.mx(group=4)):
        codes, scales, _ = encode(quantize.adaround(100), kernel, grid, part(moments))
        chosen = np.asarray(decode(codes, scales, grid))
        every = [
            np.asarray(decode(jnp.full(kernel.shape, code, jnp.int8), scales, grid))
            for code in range(grid.codes[0], grid.codes[1] + 1)
        ]
        below = np.max([np.where(level <= kernel + 1e-6, level, -np.inf) for level in every], axis=0)
        above = np.min([np.where(level >= kernel - 1e-6, level, np.inf) for level in every], axis=0)
        beyond = ~np.isfinite(below) | ~np.isfinite(above)
        assert (np.isclose(chosen, below) | np.isclose(chosen, above) | beyond).all()


def test_among_the_best_of_all_roundings_of_a_row():
    """10 entries go up or down in 1,024 ways."""
    kernel, moments = layer()
    kernel, moments = kernel[:10, :1], moments[:10, :10]
    _, scales, notes = encode(quantize.adaround(), kernel, INT3, part(moments))
    place = kernel[:, 0] / float(scales.scale[0, 0]) + float(scales.zero[0, 0])
    ways = [np.clip(np.floor(place) + up, *INT3.codes) for up in itertools.product((0, 1), repeat=10)]
    values = (np.array(ways) - float(scales.zero[0, 0])) * float(scales.scale[0, 0]) - kernel[:, 0]
    losses = np.einsum("wi,ij,wj->w", values, moments, values)
    assert np.sum(losses < 0.999 * notes["layer_loss"]) <= 10
    assert np.sum(losses < 0.999 * notes["nearest_loss"]) >= 200


def test_masks_stacks_and_jit():
    kernels, moments = (np.stack(both) for both in zip(layer(0), layer(1)))
    kept = np.random.default_rng(2).random(kernels.shape) < 0.6
    rounding, stack = quantize.adaround(200), Layout((1,), (2,), (0,))
    given = part(moments, stack, jnp.asarray(kept))
    codes, scales, notes = encode(rounding, kernels * kept, INT3, given)
    assert not np.asarray(decode(codes, scales, INT3))[~kept].any()
    assert notes["layer_loss"] < 0.6 * notes["nearest_loss"]
    alone = [encode(rounding, k * m, INT3, part(h, kept=jnp.asarray(m)))[0] for k, m, h in zip(kernels, kept, moments)]
    np.testing.assert_array_equal(codes, alone)
    traced = jax.jit(lambda w, s: rounding.round(w, s, INT3, given))(jnp.asarray(kernels * kept), scales)
    np.testing.assert_array_equal(codes, traced)


def test_outputs_whose_descent_ends_worse_than_nearest_keep_the_nearest_codes():
    """A weak penalty leaves entries between two levels, and rounding them costs some outputs all they won."""
    kernel, moments = layer()
    given = part(moments)
    codes, scales, notes = encode(quantize.adaround(300, 0.05, 0.01), kernel, INT3, given)
    nearest = quantize.nearest().round(jnp.asarray(kernel), scales, INT3, given)
    scale, zero = (np.asarray(a, np.float64).T for a in (scales.scale, scales.zero))
    expected = oracle.codes(kernel.T, moments, scale, zero, INT3.codes, steps=300, lr=0.05, penalty=0.01).T
    kept = np.all(np.asarray(codes) == np.asarray(nearest), axis=0) & np.any(expected != np.asarray(nearest), axis=0)
    assert kept.any()
    np.testing.assert_array_equal(codes, better(expected, scales, INT3, kernel, moments))
    assert notes["layer_loss"] < notes["nearest_loss"]


def test_bad_input_is_refused_by_its_path():
    with pytest.raises(ValueError, match="adaround: w is a sum or a product of arrays"):
        encode(quantize.adaround(), layer()[0], INT3, part(layer()[1], alone=False))
    for wrong in ({"steps": 0}, {"lr": 0.0}, {"penalty": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            quantize.adaround(**wrong)
