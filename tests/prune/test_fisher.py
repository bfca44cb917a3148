import jax.numpy as jnp
import numpy as np

from spartax import prune
from spartax.records import Evidence, Layout, Objective
from tests import plugs
from tests.oracles import golden


def test_by_hand_on_a_regression():
    """The gradient of one example is `(a.w - y) a`."""
    weights, given = golden.regression()
    ((x, y),) = given.objective.batches
    w, a = np.asarray(weights["w"])[:, 0], np.asarray(x)
    expected = w**2 * np.mean(((a @ w - np.asarray(y))[:, None] * a) ** 2, axis=0) / 2
    np.testing.assert_allclose(prune.fisher().score(weights, given)["w"][:, 0], expected, rtol=1e-5)


def test_sees_curvature_at_a_minimum_where_snip_and_magnitude_see_nothing():
    """At the minimum the mean gradient vanishes; the entry on the small input costs least, though it is the largest."""
    x = jnp.array([[3.0, 0.1], [3.0, -0.1], [-3.0, 0.1], [-3.0, -0.1]])
    weights = {"w": jnp.array([[1.0], [2.0]])}
    noise = jnp.stack([jnp.array([1.0, -1.0, -1.0, 1.0])]).T  # orthogonal to both inputs
    y = (x @ weights["w"] + noise)[:, 0]
    objective = Objective(lambda w, x: x @ w["w"], ((x, y),), lambda logits, y: jnp.square(logits[:, 0] - y) / 2)
    given = Evidence({"w": Layout((0,), (1,))}, objective=objective)
    np.testing.assert_allclose(prune.fisher().score(weights, given)["w"][:, 0], [9 / 2, 4 * 0.01 / 2], rtol=1e-4)
    losses = {}
    for name, criterion in {"fisher": prune.fisher(), "magnitude": prune.magnitude()}.items():
        pruned, _ = plugs.run(prune.prune(criterion, 0.5), weights, given)
        losses[name] = float(jnp.mean(objective.loss(objective.logits({"w": plugs.dense(pruned["w"])}, x), y)))
    np.testing.assert_allclose([losses["fisher"], losses["magnitude"]], [0.5 + 0.02, 0.5 + 4.5], rtol=1e-4)
