import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import program, prune
from spartax.records import Evidence, Layout, Objective
from tests import plugs

DENSE = Layout((0,), (1,))


def net(weights, x):
    return jax.nn.relu(x @ weights["first"]) @ weights["last"]


@functools.cache
def problem(classes=2):
    """Units 0 and 1 tell the classes apart; 2 and 3 see noise and have larger weights, with little use after them."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 40)
    x = np.concatenate([np.eye(2)[y], rng.uniform(size=(40, 2))], axis=1)
    first = np.diag([1.0, 1.0, 3.0, 3.0])
    last = np.array([[2.0, 0.1], [0.1, 2.0], [0.1, 0.1], [0.1, 0.1]])
    weights = {"first": jnp.asarray(first, jnp.float32), "last": jnp.asarray(last, jnp.float32)}
    return weights, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)


def score(weights, batches, **options):
    given = Evidence(dict.fromkeys(weights, DENSE), objective=Objective(net, tuple(batches)))
    return prune.relevance(**options).score(weights, given)


def test_relevance_of_weights_and_units_by_hand():
    """All numbers positive: weight (i, j) of the last layer carries `h_i w_iy`, a first weight all of its unit."""
    weights, x, y = problem()
    found = score(weights, [(x[:25], y[:25]), (x[25:], y[25:])], normalize=False)
    hidden, last = np.asarray(x) * [1, 1, 3, 3], np.asarray(weights["last"])
    passed = hidden[:, :, None] * last * np.eye(2)[np.asarray(y)][:, None, :]
    np.testing.assert_allclose(found["last"], passed.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["first"], np.diag(passed.sum(2).mean(0)), rtol=1e-5, atol=1e-7)
    logits = np.asarray(net(weights, x))[np.arange(40), np.asarray(y)]
    for path in weights:  # nothing is lost on the way
        np.testing.assert_allclose(np.sum(found[path]), logits.mean(), rtol=1e-5)
    units = score(weights, [(x, y)], normalize=False, per_output=True)
    np.testing.assert_allclose(units["first"], np.tile(passed.sum(2).mean(0), (4, 1)), rtol=1e-5)


def test_noise_goes_first_where_magnitude_would_keep_it():
    weights, x, y = problem()
    first = {"first": weights["first"]}
    objective = Objective(lambda w, x: net({**weights, **w}, x), ((x, y),))
    given = Evidence({"first": DENSE}, objective=objective)
    relevant, _ = plugs.run(prune.prune(prune.relevance(), 14 / 16, prune.uniform()), first, given)
    magnitude, _ = plugs.run(prune.prune(prune.magnitude(), 14 / 16, prune.uniform()), first, given)
    np.testing.assert_array_equal(np.nonzero(np.asarray(relevant["first"].mask)), [[0, 1], [0, 1]])
    np.testing.assert_array_equal(np.nonzero(np.asarray(magnitude["first"].mask)), [[2, 3], [2, 3]])


def test_normalized_layers_sum_to_one_and_ignore_the_scale_of_images():
    weights, x, y = problem()
    plain, scaled = score(weights, [(x, y)]), score(weights, [(4 * x, y)])
    for path in weights:
        np.testing.assert_allclose(np.abs(plain[path]).sum(), 1, rtol=1e-5)
        np.testing.assert_allclose(scaled[path], plain[path], rtol=1e-4, atol=1e-7)


def test_the_rule_counts():
    """With weights of both signs, gradient times value cancels where z+ does not."""
    rng = np.random.default_rng(1)
    weights = {p: jnp.asarray(rng.normal(size=w.shape), jnp.float32) for p, w in problem()[0].items()}
    _, x, y = problem()
    gradient = jax.grad(lambda w: jnp.mean(net(w, x)[jnp.arange(40), y]))(weights)
    plain = score(weights, [(x, y)], rule=program.epsilon(0.0), normalize=False)
    for path, w in weights.items():
        np.testing.assert_allclose(plain[path], w * gradient[path], rtol=1e-4, atol=1e-6)
    z_plus = score(weights, [(x, y)], normalize=False)
    assert not np.allclose(z_plus["first"], plain["first"], rtol=0.1)


def test_bad_input_is_named():
    weights, x, y = problem()
    with pytest.raises(ValueError, match=r"batches must be \(x, y\)"):
        score(weights, [x])
    with pytest.raises(ValueError, match="relevance: the relevance is zero everywhere"):
        score(weights, [(0 * x, y)])
