"""Known answers of the patterns."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spartax import prune
from spartax.records import Layout
from tests.oracles import golden
from tests.oracles import prune as oracle

DENSE = Layout((0,), (1,))


def test_unstructured_takes_the_largest_of_the_whole_weight():
    score = jnp.array([[1.0, 9.0, 8.0], [2.0, 7.0, 0.0]])
    np.testing.assert_array_equal(prune.unstructured()(score, 3, DENSE), [[0, 1, 1], [0, 1, 0]])


def test_unstructured_ties_go_to_the_lowest_flat_index():
    score = jnp.array([[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]])
    np.testing.assert_array_equal(prune.unstructured()(score, 4, DENSE), [[1, 1, 1], [0, 1, 0]])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(-3, 3), min_size=24, max_size=24), st.integers(0, 24))
def test_unstructured_is_exact_under_ties(values, keep):
    score = np.array(values, np.float32).reshape(4, 6)
    mask = prune.unstructured()(jnp.asarray(score), keep, DENSE)
    assert int(mask.sum()) == keep
    np.testing.assert_array_equal(mask, oracle.top(score, keep))


def test_two_of_four_golden():
    """Four neighbours along the input axis of a kernel [in, out], for each output."""
    score = jnp.abs(jnp.asarray(golden.inputs()[0].T))
    mask = prune.n_of_m(2, 4)(score, score.size // 2, DENSE)
    np.testing.assert_array_equal(mask[:, 0], golden.NUMBERS["nm24_mag_row0"])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([(1, 4), (2, 4), (3, 8), (1, 2)]))
def test_groups_run_along_the_input_axis(seed, shape):
    n, m = shape
    score = np.random.default_rng(seed).integers(0, 4, (3, 2, 8, 4)).astype(np.float32)
    for layout in (Layout((0, 1, 2), (3,)), Layout((0, 1, 3), (2,))):
        if score.shape[layout.inputs[-1]] % m:
            continue
        mask = prune.n_of_m(n, m)(jnp.asarray(score), score.size * n // m, layout)
        np.testing.assert_array_equal(mask, oracle.n_of_m(score, n, m, layout.inputs[-1]))


def test_n_of_m_refuses_what_does_not_fit():
    score = jnp.ones((6, 8))
    with pytest.raises(ValueError, match="input axis divisible by 4; got 6"):
        prune.n_of_m(2, 4)(score, 24, DENSE)
    with pytest.raises(ValueError, match="keeps 24 of 48 weights, not 5"):
        prune.n_of_m(1, 2)(score, 5, DENSE)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (5, 4), (2, 0), (1.5, 4), (-1, 4)])
def test_bad_group(n, m):
    with pytest.raises(ValueError, match="must be"):
        prune.n_of_m(n, m)


def test_per_output_golden():
    """The kernel of Wanda's comparison groups: 8 of 16 inputs of every output."""
    kernel = golden.inputs()[0].T
    mask = prune.per_output()(jnp.abs(jnp.asarray(kernel, jnp.float32)), 48, DENSE)
    assert np.asarray(mask).sum(0).tolist() == [8] * 6
    np.testing.assert_allclose(golden.output_error(kernel * np.asarray(mask)), 2778.393, rtol=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6), st.integers(0, 72), st.sampled_from([((0, 1, 2), (3,)), ((3,), (0, 1, 2)), ((1, 2), (3,))])
)
def test_per_output_is_fair_and_breaks_ties_by_index(seed, keep, axes):
    layout = Layout(*axes, stack=(0,) if axes[0] == (1, 2) else ())
    score = np.random.default_rng(seed).integers(0, 4, (2, 3, 4, 3)).astype(np.float32)
    mask = prune.per_output()(jnp.asarray(score), keep, layout)
    np.testing.assert_array_equal(mask, oracle.per_output(score, keep, layout.inputs))
