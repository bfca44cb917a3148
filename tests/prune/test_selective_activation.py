"""AP: which weights its turn removes."""

import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import program, prune
from spartax.records import Evidence, Layout
from tests import plugs

LAYOUTS = {"a": Layout((0,), (1,)), "b": Layout((0,), (1,))}


def problem(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"a": (10, 8), "b": (5, 4)}
    return {p: jnp.asarray(rng.normal(size=s), jnp.float32) for p, s in shapes.items()}


def play(fraction):
    """The pruner's turn and AP's, with other weights at the start of training."""
    base = prune.prune(prune.magnitude(), 0.5, prune.pooled(0), regrow=False)
    transform = prune.selective_activation(base, fraction)
    given = Evidence(LAYOUTS, originals=problem(1))
    params, state = transform.init(problem(), given)
    first, state, _ = transform.update(params, state, given)
    second, state, info = transform.update(first, state, given)
    return first, second, info


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 5), (0.5, None), (0.0, 0)])
def test_kept_negative_weights_that_moved_least_go(fraction, count):
    first, second, info = play(fraction)
    flat = lambda tree: np.concatenate([np.ravel(tree[p]) for p in LAYOUTS])  # noqa: E731
    before, after = (flat({p: w.mask for p, w in params.items()}) for params in (first, second))
    weight, moved = flat(problem()), np.abs(flat(problem()) - flat(problem(1)))
    assert before.sum() == 50
    candidates = np.flatnonzero(before & (weight < 0))
    count = len(candidates) if count is None else count  # half of all is more than there are negative ones
    expected = before.copy()
    expected[candidates[np.argsort(moved[candidates], kind="stable")][:count]] = False
    np.testing.assert_array_equal(after, expected)
    for path, mask in {p: np.asarray(w.mask) for p, w in second.items()}.items():
        assert (info[path]["method"], info[path]["connected"]) == ("selective_activation", None)
        assert info[path]["outputs_without_input"] == (~mask.any(0)).sum()
        assert ("warnings" in info[path]) == (mask.sum() < 10)
    assert sum(entry["removed"] for entry in info.values()) == count
    assert sum(entry["kept"] for entry in info.values()) == 50 - count


def test_fewer_zeros_for_inputs_that_are_not_negative():
    """Without the negative weight the unit is never zero."""
    weight = {"w": jnp.array([[1.0], [-3.0]])}
    x = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    given = Evidence({"w": LAYOUTS["a"]}, originals={"w": jnp.zeros((2, 1))})
    transform = prune.selective_activation(prune.prune(prune.magnitude(), 0.0), 0.5)
    params, state = transform.init(weight, given)
    rates = []
    for _ in range(2):
        params, state, _ = transform.update(params, state, given)
        network = sx.compressed(lambda p, x: jnp.maximum(x @ p["w"], 0.0))
        rates.append(program.dead_neurons(network, params, [x]).dynamic)
    assert rates[0] > 0.5
    assert rates[1] == 0


def test_the_pruner_counts_its_own_rounds():
    base = prune.prune(prune.magnitude(), 0.75, prune.uniform(), schedule=prune.exponential(2), regrow=False)
    transform = prune.selective_activation(base, 0.1)
    given = Evidence(LAYOUTS, originals=problem(1))
    params, state = transform.init(problem(), given)
    kept = []
    for step in range(4):
        params, state, _ = transform.update(params, state, given._replace(step=step))
        kept.append(sum(int(w.mask.sum()) for w in params.values()))
    assert kept == [50, 45, 25, 23]


def test_a_layer_that_would_lose_its_last_entries_is_named():
    """All entries of `a` are negative and did not move."""
    weights = {"a": jnp.full((1, 2), -1.0), "b": jnp.ones((4, 4))}
    given = Evidence(LAYOUTS, originals={"a": weights["a"], "b": jnp.zeros((4, 4))})
    transform = prune.selective_activation(prune.prune(prune.magnitude(), 0.0), 0.2)
    params, state = transform.init(weights, given)
    params, state, _ = transform.update(params, state, given)
    with pytest.raises(ValueError, match="a: no weight would be left; lower the fraction"):
        transform.update(params, state, given)


def test_bad_arguments():
    base = prune.prune(prune.magnitude(), 0.5)
    with pytest.raises(ValueError, match="fraction must be in"):
        prune.selective_activation(base, 1.0)
    given = plugs.evidence()._replace(originals=None)
    transform = prune.selective_activation(base)
    with pytest.raises(ValueError, match="originals is needed"):
        transform.update(*transform.init(plugs.draw(), given), given)
