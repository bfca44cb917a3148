import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune, quantize
from spartax.prune.criteria import sparsegpt as file
from spartax.records import Evidence, Layout
from tests import plugs
from tests.oracles import golden, obs

NUMBERS = golden.NUMBERS


def solved(weights, given, criterion, sparsity=None, pattern=None):
    """(dense weight, mask) of the only weight."""
    transform = prune.prune(criterion, sparsity, prune.uniform(), pattern)
    leaf = plugs.run(transform, weights, given)[0]["w"]
    return np.asarray(plugs.dense(leaf)), np.asarray(leaf.mask)


@functools.cache
def layer():
    """A layer [12 outputs, 20 inputs] with correlated inputs: (kernel, evidence, moments)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 20)) + 0.3 * rng.normal(size=(200, 20))
    moments = x.T @ x / 200
    weights = {"w": jnp.asarray(rng.normal(size=(20, 12)), jnp.float32)}
    return weights, Evidence({"w": Layout((0,), (1,))}, moments={"w": jnp.asarray(moments, jnp.float32)}), moments


def loss(kernel, moments):
    change = (kernel - np.asarray(layer()[0]["w"])).T
    return np.einsum("oi,ij,oj->", change, moments, change)


def test_golden_half():
    kernel, mask = solved(*golden.calibrated(), prune.sparsegpt(block=8), 0.5)
    np.testing.assert_array_equal(mask[:, 0], NUMBERS["sparsegpt50_row0_mask"])
    np.testing.assert_allclose(golden.output_error(kernel), NUMBERS["sparsegpt50_block8_err"], rtol=1e-4)


@pytest.mark.parametrize("block", [6, 128])
def test_golden_two_of_four_whatever_the_block_and_its_lower_bound(block):
    kernel, mask = solved(*golden.calibrated(), prune.sparsegpt(block), pattern=prune.n_of_m(2, 4))
    np.testing.assert_array_equal(mask[:, 0], NUMBERS["sparsegpt24_row0_mask"])
    np.testing.assert_allclose(golden.output_error(kernel), NUMBERS["sparsegpt24_err"], rtol=1e-4)
    weight, x = golden.inputs()
    best = obs.solved_rows(weight, x @ x.T, mask.T)
    np.testing.assert_allclose(golden.output_error(best.T), NUMBERS["obs_on_sparsegpt24_mask_err"], rtol=1e-6)


def test_better_than_its_mask_alone_than_wanda_and_than_magnitude():
    weights, given, moments = layer()
    kernel, mask = solved(weights, given, prune.sparsegpt(), 0.5)
    found = loss(kernel, moments)
    assert found < 0.7 * loss(np.where(mask, weights["w"], 0), moments)
    best = obs.solved_rows(np.asarray(weights["w"]).T, moments, mask.T).T
    assert loss(best, moments) <= found
    for criterion in (prune.wanda(), prune.magnitude()):
        other, _ = solved(weights, given, criterion, 0.5, prune.per_output())
        assert found < 0.7 * loss(other, moments)


def test_every_output_keeps_as_many_where_the_pattern_says_so():
    """Blocks of 7 columns of 20: 3 or 4 are kept in each."""
    weights, given, _ = layer()
    _, mask = solved(weights, given, prune.sparsegpt(block=7), 0.5, prune.per_output())
    np.testing.assert_array_equal(mask.sum(0), 10)
    assert {*mask[:7].sum(0), *mask[7:14].sum(0), *mask[14:].sum(0)} <= {3, 4}


def test_a_pattern_without_a_span_is_chosen_once_and_solved():
    weights, given, moments = layer()
    pattern = prune.per_output()._replace(span=None)
    kernel, mask = solved(weights, given, prune.sparsegpt(block=7), 0.5, pattern)
    score = prune.sparsegpt().score(weights, given)["w"]
    np.testing.assert_array_equal(mask, pattern(score, 120, given.layouts["w"]))
    assert loss(kernel, moments) < loss(np.where(mask, weights["w"], 0), moments)


@pytest.mark.parametrize("groups", [False, True])
def test_matrices_with_inputs_of_their_own_against_direct_inverses(groups):
    """Two layers of a stack, and two groups of a convolution; 5 columns, blocks of 2, an odd count."""
    rng = np.random.default_rng(3)
    matrices, x = rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 40, 5)) @ rng.normal(size=(2, 5, 5))
    moments = np.einsum("ltj,ltk->ljk", x, x) / 40
    if groups:  # [1, 1, 5, 6]: outputs of the first group come first
        kernel, layout = matrices.reshape(6, 5).T[None, None], Layout((0, 1, 2), (3,), groups=2)
        back = lambda a: a[0, 0].T.reshape(2, 3, 5)  # noqa: E731
    else:
        kernel, layout = matrices.transpose(0, 2, 1), Layout((1,), (2,), (0,))
        back = lambda a: a.transpose(0, 2, 1)  # noqa: E731
    given = Evidence({"w": layout}, moments={"w": jnp.asarray(moments, jnp.float32)})
    found, mask = solved({"w": jnp.asarray(kernel, jnp.float32)}, given, prune.sparsegpt(block=2), 17 / 30)
    assert mask.sum() == 13
    expected, kept = obs.sparsegpt(matrices, moments, [5, 5, 3], 2)
    np.testing.assert_array_equal(back(mask), kept)
    np.testing.assert_allclose(back(found), expected, rtol=1e-3, atol=1e-4)


def test_scores_are_the_errors_of_single_removals():
    """`w^2 / [H^-1]_jj`, which is what the least-squares problem without that entry loses."""
    weights, given, moments = layer()
    score = prune.sparsegpt(damping=0.0).score(weights, given)["w"]
    mask = np.ones((12, 20), bool)
    mask[4, 7] = False
    best = obs.solved_rows(np.asarray(weights["w"]).T, moments, mask).T
    np.testing.assert_allclose(score[7, 4], loss(best, moments), rtol=1e-2)


def test_inputs_that_are_always_zero_lose_their_weights_first():
    weights, given, moments = layer()
    dead = moments.copy()
    dead[:, [3, 11]] = dead[[3, 11]] = 0
    given = given._replace(moments={"w": jnp.asarray(dead, jnp.float32)})
    kernel, mask = solved(weights, given, prune.sparsegpt(block=5), 0.3)
    assert mask.sum() == 168
    assert not mask[[3, 11]].any()
    assert np.isfinite(kernel).all()


def test_moments_that_cannot_be_factored_get_more_damping_and_a_warning():
    weights, given, _ = layer()
    flat = given._replace(moments={"w": jnp.ones((20, 20))})
    with pytest.warns(UserWarning, match="the moments of w cannot be factored; damping is raised to 0.0001"):
        kernel, _ = solved(weights, flat, prune.sparsegpt(damping=0.0), 0.5)
    assert np.isfinite(kernel).all()
    with pytest.warns(UserWarning, match="raised"), pytest.raises(ValueError, match="moments of w are not those"):
        solved(weights, given._replace(moments={"w": -jnp.ones((20, 20)) + 2 * jnp.eye(20)}), prune.sparsegpt(), 0.5)
    with pytest.raises(ValueError, match="sparsegpt: the input of w is zero everywhere"):
        solved(weights, given._replace(moments={"w": jnp.zeros((20, 20))}), prune.sparsegpt(), 0.5)


def test_the_program_does_not_grow_with_the_layer():
    def equations(inputs):
        shapes = [(inputs, 8), (inputs, inputs), (inputs,), (inputs // 4,)]
        kinds = [jnp.float32, jnp.float32, jnp.bool_, jnp.int32]
        args = [jax.ShapeDtypeStruct(s, k) for s, k in zip(shapes, kinds)]
        kind = {"pattern": prune.unstructured(), "layout": Layout((0,), (1,)), "block": 4, "span": 4}
        return len(str(jax.make_jaxpr(lambda *a: file._solve(*a, None, **kind))(*args)).splitlines())

    assert equations(16) == equations(64)


def test_codes_cannot_be_moved():
    weights, given, _ = layer()
    quantized = plugs.run(quantize.quantize(quantize.integer(4)), weights, given._replace(originals=weights))[0]
    with pytest.raises(ValueError, match="w: this criterion moves the weights it keeps, and a Quantized is fixed"):
        solved(quantized, given, prune.sparsegpt(), 0.5)
