"""Ranges cut where the output is off least: never worse than whole ones, and another choice than that of `mse`."""

import jax.numpy as jnp
import numpy as np
import pytest

from spartax import quantize
from spartax.quantize.codes import decode, encode
from spartax.records import Layout
from tests.quantize.layers import layer, part

GRID = quantize.integer(3, group=10)


def off(kernel, scales):
    return np.asarray(kernel - decode(encode(jnp.asarray(kernel), scales, GRID), scales, GRID), np.float64)


def by_block(kernel, scales, moments):
    """`d H d^T` of both groups of ten inputs, `[2, outputs]`."""
    change, blocks = off(kernel, scales), (slice(0, 10), slice(10, 20))
    return np.array([np.einsum("io,ij,jo->o", change[b], moments[b, b], change[b]) for b in blocks])


def test_every_block_has_the_share_of_a_slow_search():
    kernel, moments = layer()
    found = quantize.output_error().fit(jnp.asarray(kernel), GRID, part(moments))
    largest = np.abs(kernel.reshape(2, 10, 12)).max(1)
    tried = [
        by_block(kernel, found._replace(scale=jnp.asarray((1 - i / 20) * largest / 3, jnp.float32)), moments)
        for i in range(10)
    ]
    np.testing.assert_allclose(by_block(kernel, found, moments), np.min(tried, 0), rtol=1e-3)
    assert (np.min(tried, 0) <= tried[0]).all()
    assert np.min(tried, 0).sum() < 0.8 * tried[0].sum()
    other = quantize.mse().fit(jnp.asarray(kernel), GRID, part(moments))
    assert np.min(tried, 0).sum() < 0.95 * by_block(kernel, other, moments).sum()


def test_an_outlier_that_nothing_flows_into_is_cut():
    """A whole range has steps of 1.5; inputs that all count, in the second block, take the middle way."""
    kernel, moments = np.full((20, 1), 1.2, np.float32), np.eye(20)
    kernel[0], kernel[10], moments[0, 0] = 4.5, 4.5, 1e-6
    scales = quantize.output_error().fit(jnp.asarray(kernel), GRID, part(moments))
    np.testing.assert_allclose(scales.scale[0], 0.8 * 1.5, rtol=1e-6)  # then 1.2 is a code
    np.testing.assert_allclose(scales.scale[1], 0.9 * 1.5, rtol=1e-6)  # least 9 (s - 1.2)^2 + 9 (1.5 - s)^2: s = 1.35


def test_a_group_of_all_features_of_a_tap_is_a_block_of_its_own():
    """Four taps of five features: what a block loses does not depend on the others."""
    kernel, moments = layer()
    layout, grid, shape = Layout((0, 1, 2), (3,)), quantize.integer(3, group=5), (2, 2, 5, 12)
    found = quantize.output_error().fit(jnp.asarray(kernel.reshape(shape)), grid, part(moments, layout))
    assert found.scale.shape == (2, 2, 1, 12)
    for tap, scale in enumerate(np.asarray(found.scale).reshape(4, 12)):
        own, seen = kernel[5 * tap : 5 * tap + 5], moments[5 * tap : 5 * tap + 5, 5 * tap : 5 * tap + 5]
        steps = [(1 - i / 20) * np.abs(own).max(0) / 3 for i in range(10)]
        lost = [np.clip(np.round(own / step), -3, 3) * step - own for step in (scale, *steps)]
        first, *tried = (np.einsum("io,ij,jo->o", change, seen, change) for change in lost)
        np.testing.assert_allclose(first, np.min(tried, 0), rtol=1e-3)


def test_bad_input_is_refused():
    kernel, moments = layer()
    with pytest.raises(ValueError, match="output_error: the input of w is zero everywhere"):
        quantize.output_error().fit(jnp.asarray(kernel), GRID, part(0 * moments))
    with pytest.raises(ValueError, match="moments is needed"):
        quantize.output_error().fit(jnp.asarray(kernel), GRID, part(None))
    for shares in (0, 21):
        with pytest.raises(ValueError, match="shares must be"):
            quantize.output_error(shares)
