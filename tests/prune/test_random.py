import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import prune, train
from spartax.records import Evidence

WEIGHTS = {"a": jnp.ones((24, 20)), "b": jnp.ones((24, 20))}


def scores(weights=WEIGHTS, seed=0):
    return prune.random().score(weights, Evidence({}, key=jax.random.key(seed)))


def test_is_uniform_and_independent_of_the_weights():
    found = scores()
    for score in found.values():
        assert abs(float(jnp.mean(score)) - 0.5) < 0.04
        assert abs(float(jnp.var(score)) - 1 / 12) < 0.01
    assert abs(np.corrcoef(found["a"].ravel(), found["b"].ravel())[0, 1]) < 0.15
    np.testing.assert_array_equal(found["a"], scores({p: 7.0 * w for p, w in WEIGHTS.items()})["a"])


def test_draws_of_a_weight_depend_on_its_path_and_the_key_alone():
    np.testing.assert_array_equal(scores()["b"], scores({"b": WEIGHTS["b"]})["b"])
    assert not np.array_equal(scores()["b"], scores(seed=1)["b"])


def test_training_under_masks_drawn_before_it():
    """Fifteen steps from the start with one mask, which stays; what is under it has no part in the network."""
    rng, tx = np.random.default_rng(0), optax.adam(0.03)
    params = jax.tree.map(jnp.float32, {"first": rng.normal(size=(6, 16)), "second": rng.normal(size=(16, 3))})
    x = rng.normal(size=(40, 6)).astype(np.float32)
    y = (x.sum(1) > 0).astype(np.int32) + (x[:, 0] > 0)
    apply = sx.compressed(lambda params, x: jax.nn.relu(x @ params["first"]) @ params["second"])
    transform = prune.prune(prune.random(), 0.5, prune.erk())
    variables, method = train.begin(transform, apply, params, x, jax.random.key(0))
    step = train.make_step(train.clean(), tx, apply)
    refresh = train.make_refresh(transform, train.clean(), tx, apply)

    def fit(state, count):
        return train.fit(step, state, [(x, y)] * count, jax.random.key(1), refresh=refresh, progress=False)

    state, (first,) = fit(train.init_state(variables, tx, method=method), 1)
    masks = {path: np.array(state.variables[path].mask) for path in params}
    densities = prune.erk()(params, 0.5, Evidence(method.layouts))
    assert {path: int(mask.sum()) for path, mask in masks.items()} == densities
    size = {path: np.abs(np.asarray(w)) for path, w in params.items()}
    assert any(size[path][~mask].max() > np.median(size[path][mask]) for path, mask in masks.items())  # not by size
    state, losses = fit(state, 14)
    for path, mask in masks.items():
        np.testing.assert_array_equal(state.variables[path].mask, mask)
        assert np.all(np.asarray(state.variables[path].weight != params[path])[mask])
    hidden = np.maximum(x @ (np.asarray(state.variables["first"].weight) * masks["first"]), 0)
    logits = hidden @ (np.asarray(state.variables["second"].weight) * masks["second"])
    np.testing.assert_allclose(apply(state.variables, x), logits, rtol=1e-4, atol=1e-5)
    assert losses[-1] < 0.7 * first


def test_no_key_is_an_error():
    with pytest.raises(ValueError, match="key is needed"):
        prune.random().score(WEIGHTS, Evidence({}))
