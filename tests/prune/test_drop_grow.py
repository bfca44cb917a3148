"""RigL and SET: the move of the masks, and when and how much of them moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spartax as sx
from spartax import prune
from spartax.prune import drop_grow
from spartax.records import Evidence, Layout, Objective
from tests import plugs
from tests.oracles import golden

WEIGHTS, GIVEN = plugs.draw(), plugs.evidence()


def oracle(weight, mask, growth, count):
    """Lists of flat indices, sorted by Python: stable, so ties go to the lowest index."""
    weight, mask = weight.copy(), mask.copy()
    active = sorted(np.flatnonzero(mask), key=lambda i: -abs(weight.flat[i]))
    kept = active[: len(active) - count]
    grown = sorted((i for i in range(mask.size) if i not in kept), key=lambda i: -growth.flat[i])[:count]
    for i in grown:
        if not mask.flat[i]:
            weight.flat[i] = 0
    mask[:] = False
    mask.flat[kept + grown] = True
    return weight, mask


def test_golden_step():
    """-0.2 is dropped and grows again with its value; 0.9 moves nowhere; what grows new starts from zero."""
    w = jnp.array([[0.5, -0.1, 0, 0.3], [0, 0.9, -0.2, 0]])
    g = jnp.array([[0.1, 0.05, -0.7, 0.2], [0.4, 0, 3, -0.6]])
    leaf = drop_grow.move(sx.Masked(w, w != 0), jnp.abs(g), int(0.4 * 5), int(0.4 * 5))
    np.testing.assert_array_equal(leaf.mask, golden.NUMBERS["rigl_step"]["mask"])
    np.testing.assert_allclose(sx.dense(leaf), golden.NUMBERS["rigl_step"]["w"])


def test_golden_fractions():
    found = [drop_grow.cosine(0.3, 24_000, step) for step in (0, 6_000, 12_000, 24_000)]
    np.testing.assert_allclose(found, golden.NUMBERS["rigl_fraction"], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.floats(0, 1))
def test_exactly_as_many_are_kept_and_they_are_those_of_the_oracle(seed, kept, share):
    """Small integers, so that most values are tied."""
    rng = np.random.default_rng(seed)
    weight, growth = (rng.integers(-3, 4, (4, 6)).astype(np.float32) for _ in range(2))
    mask = np.zeros(24, bool)
    mask[rng.permutation(24)[:kept]] = True
    mask, count = mask.reshape(4, 6), int(share * kept)
    leaf = drop_grow.move(sx.Masked(jnp.asarray(weight), jnp.asarray(mask)), jnp.abs(growth), count, count)
    expected = oracle(weight, mask, abs(growth), count)
    np.testing.assert_array_equal(leaf.mask, expected[1])
    np.testing.assert_array_equal(leaf.weight, expected[0])
    assert int(leaf.mask.sum()) == kept


def test_rigl_starts_at_erk_counts_and_keeps_them():
    transform = prune.rigl(0.8, end=1000, every=10)
    params, state = transform.init(WEIGHTS, GIVEN)
    assert state == prune.erk()(WEIGHTS, 0.8, GIVEN)
    masks = {p: np.asarray(w.mask) for p, w in params.items()}
    new, state, info = transform.update(params, state, GIVEN._replace(step=10))
    for path, leaf in new.items():
        count = int(0.3 / 2 * (1 + np.cos(np.pi * 10 / 1000)) * state[path])
        assert info[path]["moved"] == count
        assert info[path]["kept"] == int(leaf.mask.sum()) == state[path]
        weight, mask = oracle(np.asarray(WEIGHTS[path]), masks[path], np.abs(GIVEN.grads[path]), count)
        np.testing.assert_array_equal(leaf.mask, mask)
        np.testing.assert_array_equal(leaf.weight, weight)
    moved = sum((np.asarray(new[p].mask) & ~masks[p]).sum() for p in new)
    assert moved > 20


def test_sparse_evolution_grows_at_random_with_the_key_and_no_gradient():
    transform = prune.sparse_evolution(0.8, end=1000)
    first = transform.init(WEIGHTS, GIVEN)
    blind = GIVEN._replace(grads=None, step=100)
    one, same, other = (transform.update(*first, blind._replace(key=jax.random.key(k)))[0] for k in (7, 7, 8))
    for path in WEIGHTS:
        np.testing.assert_array_equal(one[path].mask, same[path].mask)
        assert np.any(one[path].mask != other[path].mask)
        dropped = np.asarray(first[0][path].mask & ~one[path].mask)
        stayed = np.asarray(first[0][path].mask & one[path].mask)
        if dropped.any():
            size = np.abs(np.asarray(WEIGHTS[path]))
            assert np.median(size[dropped]) < np.median(size[stayed])


def test_masks_move_every_few_steps_until_the_end():
    transform = prune.rigl(0.5, end=350)
    assert [step for step in range(600) if transform.due(step)] == [100, 200, 300]


def test_a_mask_that_does_not_move_any_more():
    transform = prune.rigl(0.5, end=10)
    params, state = transform.init(WEIGHTS, GIVEN)
    later, _, info = transform.update(params, state, GIVEN._replace(step=10))
    jax.tree.map(np.testing.assert_array_equal, later, params)
    assert all(entry["moved"] == 0 for entry in info.values())


def test_whether_the_network_conducts_is_asked_of_the_masked_weights():
    """The kept entries do not meet; what the masks remove still holds numbers."""
    network = lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"]  # noqa: E731
    masks = {"a": jnp.array([[True, False]]), "b": jnp.array([[False], [True]])}
    params = {path: sx.Masked(jnp.ones(mask.shape), mask) for path, mask in masks.items()}
    given = Evidence(
        {path: Layout((0,), (1,)) for path in masks},
        grads={path: jnp.ones(mask.shape) for path, mask in masks.items()},
        objective=Objective(network, (jnp.ones((2, 1)),)),
        step=10,
        key=jax.random.key(0),
    )
    info = prune.rigl(0.5, end=10).update(params, {"a": 1, "b": 1}, given)[2]
    assert [info[path]["connected"] for path in "ab"] == [False, False]


def test_bad_arguments():
    for name, options in {"sparsity": {"sparsity": 1.0}, "fraction": {"fraction": 1.5}, "every": {"every": 0}}.items():
        with pytest.raises(ValueError, match=f"{name} must be"):
            prune.rigl(end=5, **options)
    transform = prune.rigl(0.5, end=10)
    params, state = transform.init(WEIGHTS, GIVEN)
    with pytest.raises(ValueError, match="step is needed"):
        transform.update(params, state, GIVEN._replace(step=None))
    with pytest.raises(ValueError, match="grads is needed"):
        transform.update(params, state, GIVEN._replace(grads=None))
    nothing = jax.tree.map(jnp.zeros_like, GIVEN.grads)
    with pytest.raises(ValueError, match="rigl: the gradient of the loss is zero everywhere"):
        transform.update(params, state, GIVEN._replace(grads=nothing, step=1))
    transform.update(params, state, GIVEN._replace(grads={**nothing, "dense": GIVEN.grads["dense"]}, step=1))
    with pytest.raises(ValueError, match="key is needed"):
        transform.init(WEIGHTS, GIVEN._replace(key=None))
    with pytest.raises(ValueError, match="dense: rigl trains plain arrays; got a Masked"):
        transform.init(params, GIVEN)
    tiny = {"w": jnp.ones((2, 2)), "v": jnp.ones((90, 90))}
    given = Evidence({p: Layout((0,), (1,)) for p in tiny}, key=GIVEN.key)
    with pytest.raises(ValueError, match="w: no weight would be left"):
        prune.rigl(0.9, prune.uniform(), end=5).init(tiny, given)
