import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.records import Evidence, Layout, Objective
from tests import plugs
from tests.oracles import golden


def test_golden():
    weights, given = golden.regression()
    score = prune.snip().score(weights, given)["w"][:, 0]
    np.testing.assert_allclose(score, golden.NUMBERS["foresight_linear"]["snip"], rtol=1e-4, atol=1e-6)


def test_batches_count_by_their_examples():
    weights, given = golden.regression()
    ((x, y),) = given.objective.batches
    parts = given.objective._replace(batches=((x[:32], y[:32]), (x[32:], y[32:])))
    once, twice = (prune.snip().score(weights, given._replace(objective=o))["w"] for o in (given.objective, parts))
    np.testing.assert_allclose(twice, once, rtol=1e-5)


def test_keeps_what_the_loss_needs_where_magnitude_does_not():
    """A large weight on a pixel that is nearly always zero, a small one on the pixel that decides the class."""
    x = jnp.array([[1.0, 0.01], [-1.0, 0.01], [1.0, 0.0], [-1.0, 0.0]])
    y = jnp.array([0, 1, 0, 1])
    weights = {"w": jnp.array([[0.5], [4.0]])}
    objective = Objective(lambda w, x: jnp.concatenate([x @ w["w"], -x @ w["w"]], 1), ((x, y),), plugs.cross_entropy)
    given = Evidence({"w": Layout((0,), (1,))}, objective=objective)
    losses = {}
    for name, criterion in {"snip": prune.snip(), "magnitude": prune.magnitude()}.items():
        pruned, _ = plugs.run(prune.prune(criterion, 0.5), weights, given)
        logits = objective.logits({"w": plugs.dense(pruned["w"])}, x)
        losses[name] = float(jnp.mean(plugs.cross_entropy(logits, y)))
    np.testing.assert_allclose(losses["snip"], np.log1p(np.exp(-1)), rtol=1e-5)
    assert losses["magnitude"] > 0.69


@pytest.mark.parametrize("criterion", [prune.snip(), prune.grasp()])
def test_labels_of_one_class_are_warned_about(criterion):
    x = jnp.array([[1.0, 0.5], [-1.0, 0.2]])
    objective = Objective(lambda w, x: x @ w["w"], ((x, jnp.array([1, 1])),), plugs.cross_entropy)
    with pytest.warns(UserWarning, match="every label is 1"):
        criterion.score({"w": jnp.eye(2)}, Evidence({"w": Layout((0,), (1,))}, objective=objective))


def test_what_the_gradient_needs_is_asked_for():
    weights, given = golden.regression()
    ((x, y),) = given.objective.batches
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    bad = {
        "loss is needed": given.objective._replace(loss=None),
        "with values": given.objective._replace(batches=((shape, y),)),
        r"\(x, y\)": given.objective._replace(batches=(x,)),
        "batches is empty": given.objective._replace(batches=()),
        "snip: the loss of the first batch is nan": given.objective._replace(batches=((x, y * jnp.nan),)),
        "snip: the loss holds NaN": given.objective._replace(batches=((x, y), (x, y * jnp.nan))),
        "snip: the gradient of the loss is zero everywhere": given.objective._replace(batches=((0 * x, y),)),
    }
    for message, objective in bad.items():
        with pytest.raises(ValueError, match=message):
            prune.snip().score(weights, given._replace(objective=objective))
