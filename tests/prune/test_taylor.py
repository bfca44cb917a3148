import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.records import Evidence, Layout, Objective


def two_batches():
    """Weights 1, 2, 3 with gradients (1, 1, 0.1) on the first batch and (-1, 1, 0.1) on the second."""
    x = [jnp.array([[1.0, 1.0, 0.1]]), jnp.array([[-1.0, 1.0, 0.1]])]
    weights = {"w": jnp.array([[1.0], [2.0], [3.0]])}
    objective = Objective(lambda w, x: x @ w["w"], tuple((v, jnp.zeros(1)) for v in x), lambda logits, y: logits[:, 0])
    return weights, Evidence({"w": Layout((0,), (1,))}, objective=objective)


def test_gradients_of_opposite_sign_do_not_cancel():
    weights, given = two_batches()
    np.testing.assert_allclose(prune.taylor().score(weights, given)["w"][:, 0], [1, 4, 0.09], rtol=1e-6)
    np.testing.assert_allclose(prune.taylor(1).score(weights, given)["w"][:, 0], [1, 2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(prune.snip().score(weights, given)["w"][:, 0], [0, 2 / 2.3, 0.3 / 2.3], rtol=1e-6)


def test_removes_what_changes_the_loss_least_where_magnitude_does_not():
    weights, given = two_batches()
    change = {}
    for name, criterion in {"taylor": prune.taylor(), "magnitude": prune.magnitude()}.items():
        gone = int(jnp.argmin(criterion.score(weights, given)["w"]))
        less = {"w": weights["w"].at[gone].set(0)}
        logits = given.objective.logits
        change[name] = sum(float(abs(logits(weights, x) - logits(less, x))[0, 0]) for x, _ in given.objective.batches)
    np.testing.assert_allclose([change["taylor"], change["magnitude"]], [0.6, 2.0], rtol=1e-5)


def test_another_power_is_refused():
    with pytest.raises(ValueError, match="power must be one of 1, 2; got 3"):
        prune.taylor(3)
