"""Weights as matrices: the columns are the order in which `collect` lists the inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax.arrays import rows
from spartax.records import Layout
from tests import plugs

GROUPED = Layout((0, 1, 2), (3,), groups=2)
SHAPES = {**plugs.SHAPES, "grouped": (3, 3, 4, 6)}
LAYOUTS = {**plugs.LAYOUTS, "grouped": GROUPED}


@pytest.mark.parametrize("name", list(SHAPES))
def test_there_and_back(name):
    weight = np.arange(np.prod(SHAPES[name]), dtype=np.float32).reshape(SHAPES[name])
    matrix = rows.to_rows(jnp.asarray(weight), LAYOUTS[name])
    by_hand = {
        "dense": lambda w: w.T,
        "conv": lambda w: w.reshape(-1, 20).T,
        "stack": lambda w: w.transpose(0, 2, 1),
        "outputs_first": lambda w: w,
        "grouped": lambda w: w.reshape(-1, 2, 3).transpose(1, 2, 0),
    }
    np.testing.assert_array_equal(matrix, by_hand[name](weight))
    np.testing.assert_array_equal(rows.from_rows(matrix, weight.shape, LAYOUTS[name]), weight)


def test_columns_are_the_inputs_that_collect_lists():
    """E||y||^2 of a grouped convolution from its rows and its moments alone."""
    rng = np.random.default_rng(0)
    weight, x = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 3, 4, 6), (2, 5, 5, 8)))
    run = lambda p, x: jax.lax.conv_general_dilated(  # noqa: E731
        x, p["w"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )
    moments = sx.collect(run, {"w": weight}, [x])["moments"]["w"]
    matrix = np.asarray(rows.to_rows(weight, GROUPED))
    power = np.einsum("goi,gij,goj->go", matrix, moments, matrix).reshape(-1)
    expected = np.mean(np.square(jax.jit(run)({"w": weight}, x)), axis=(0, 1, 2))
    np.testing.assert_allclose(power, expected, rtol=1e-5)
