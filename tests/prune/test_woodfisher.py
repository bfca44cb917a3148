import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.records import Evidence, Layout, Objective
from tests import plugs
from tests.oracles import golden

NUMBERS = golden.NUMBERS["woodfisher"]


def gradients_are(g, shape=(5, 1)):
    """Evidence of a network whose gradient for example t is `g[t]`."""
    objective = Objective(
        lambda w, x: x @ w["w"].reshape(-1, 1),
        ((jnp.asarray(g, jnp.float32), jnp.zeros(len(g))),),
        lambda logits, y: logits[:, 0],
    )
    return Evidence({"w": Layout((0,), (1,))}, objective=objective)


def golden_problem():
    t, j = np.arange(7)[:, None], np.arange(5)[None]
    return {"w": jnp.array([[0.3], [-0.2], [0.5], [0.1], [-0.4]])}, gradients_are(np.sin((t + 1) * (j + 1) * 0.7))


def test_golden_scores_and_update():
    weights, given = golden_problem()
    criterion = prune.woodfisher(damping=1e-2)
    np.testing.assert_allclose(criterion.score(weights, given)["w"][:, 0], NUMBERS["rho"], rtol=1e-4)
    pruned, info = plugs.run(prune.prune(criterion, 0.2), weights, given)
    assert info["w"]["kept"] == 4
    np.testing.assert_allclose(plugs.dense(pruned["w"])[:, 0], NUMBERS["updated_w"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(pruned["w"].mask)[:, 0], np.arange(5) != NUMBERS["q"])


def test_blocks_and_groups_of_examples_against_direct_inverses():
    rng = np.random.default_rng(0)
    g, w = rng.normal(size=(8, 6)), rng.normal(size=(3, 2))
    given = gradients_are(g)
    score = prune.woodfisher(block=4, damping=0.1, group=2).score({"w": jnp.asarray(w, jnp.float32)}, given)["w"]
    # The matrix is read row by row, a row for each output; the kernel [3, 2] has them as columns.
    pairs = g.reshape(4, 2, 3, 2).mean(1).transpose(0, 2, 1).reshape(4, 6)
    fisher = pairs.T @ pairs / 4 + 0.1 * np.eye(6)
    diagonal = [np.diag(np.linalg.inv(fisher[a:b, a:b])) for a, b in ((0, 4), (4, 6))]
    expected = w.T.ravel() ** 2 / (2 * np.concatenate(diagonal))
    np.testing.assert_allclose(np.asarray(score).T.ravel(), expected, rtol=1e-4)


def test_beats_magnitude_because_the_others_make_up():
    """On the quadratic that F describes, half of the weights gone."""
    rng = np.random.default_rng(1)
    g, w = rng.normal(size=(64, 3)) @ rng.normal(size=(3, 8)), rng.normal(size=8)
    weights, given = {"w": jnp.asarray(w[:, None], jnp.float32)}, gradients_are(g)
    fisher, cost = g.T @ g / 64 + 1e-3 * np.eye(8), {}
    for name, criterion in {"woodfisher": prune.woodfisher(damping=1e-3), "magnitude": prune.magnitude()}.items():
        pruned, _ = plugs.run(prune.prune(criterion, 0.25), weights, given)
        change = np.asarray(plugs.dense(pruned["w"]))[:, 0] - w
        cost[name] = change @ fisher @ change / 2
    assert cost["woodfisher"] < 0.5 * cost["magnitude"]


def test_bad_data_is_refused():
    weights, given = golden_problem()
    with pytest.raises(ValueError, match="group must divide every batch; got group=2 for a batch of 7"):
        prune.woodfisher(group=2).score(weights, given)
    with pytest.raises(ValueError, match="woodfisher: the gradient of the loss is zero everywhere"):
        prune.woodfisher().score(weights, gradients_are(np.zeros((7, 5))))
