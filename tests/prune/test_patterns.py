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


def test_block_known_answer():
    """Means of the four 2 x 2 blocks: 2.5, 5.5, 4.5 and 1."""
    score = jnp.array([[1.0, 2, 4, 5], [3, 4, 6, 7], [0, 9, 1, 1], [9, 0, 1, 1]])
    block = prune.block((2, 2))
    np.testing.assert_array_equal(block(score, 8, DENSE), np.kron([[0, 1], [1, 0]], np.ones((2, 2))))
    np.testing.assert_array_equal(block.spread(score, DENSE), np.kron([[2.5, 5.5], [4.5, 1]], np.ones((2, 2))))
    assert block.unit(score.shape, DENSE) == 4
    assert np.asarray(block(score, 11, DENSE)).sum() == 8  # a third block does not fit


def test_edge_blocks_are_smaller_and_the_reduction_decides_about_them():
    """3 x 3 in blocks of 2: one of 4 entries, two of 2, one of 1. Equal entries: equal means, larger sums."""
    score = jnp.array([[1.0, 1, 2], [1, 1, 2], [1, 1, 3]])
    np.testing.assert_array_equal(prune.block((2, 2))(score, 3, DENSE), [[0, 0, 1], [0, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(prune.block((2, 2), "sum")(score, 6, DENSE), [[1, 1, 1], [1, 1, 1], [0, 0, 0]])
    assert prune.block((2, 2))(score, 9, DENSE).all()
    assert prune.block()(score, 9, DENSE).all()
    assert not prune.block()(score, 8, DENSE).any()


def test_rows_columns_and_channels_of_a_convolution():
    """Kernel [H, W, I, O] = [2, 1, 2, 3]."""
    score = np.arange(12.0, dtype=np.float32).reshape(2, 1, 2, 3)
    layout = Layout((0, 1, 2), (3,))
    expected = np.zeros((2, 1, 2, 3), bool)
    expected[1, 0, 1, :] = True
    np.testing.assert_array_equal(prune.rows()(jnp.asarray(score), 3, layout), expected)
    expected = np.zeros((2, 1, 2, 3), bool)
    expected[..., 2] = True
    np.testing.assert_array_equal(prune.columns()(jnp.asarray(score), 4, layout), expected)
    np.testing.assert_array_equal(prune.channels()(jnp.asarray(score), 4, layout), expected)
    expected = np.zeros((2, 1, 2, 3), bool)
    expected[:, :, 1, :] = True
    np.testing.assert_array_equal(prune.channels("inputs")(jnp.asarray(score), 6, layout), expected)
    assert [p.unit(score.shape, layout) for p in (prune.rows(), prune.columns(), prune.channels("inputs"))] == [3, 4, 6]


def test_units_of_a_stack_and_of_outputs_first_follow_the_layout():
    score = np.random.default_rng(0).permutation(2 * 4 * 6).reshape(2, 4, 6).astype(np.float32)
    stacked = prune.block((2, 3))(jnp.asarray(score), 24, Layout((1,), (2,), (0,)))
    tall = prune.block((2, 3))(jnp.asarray(score.reshape(8, 6)), 24, DENSE)
    np.testing.assert_array_equal(np.asarray(stacked).reshape(8, 6), tall)
    turned = prune.block((2, 3))(jnp.asarray(score.reshape(8, 6).T), 24, Layout((1,), (0,)))
    np.testing.assert_array_equal(np.asarray(turned).T, tall)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: prune.block(4), "shape must be"),
        (lambda: prune.block((4, 0)), "shape must be"),
        (lambda: prune.block((4, 4), "max"), "reduce must be one of 'mean', 'sum'"),
        (lambda: prune.channels("input"), "Did you mean 'inputs'"),
    ],
)
def test_bad_units(make, message):
    with pytest.raises(ValueError, match=message):
        make()
