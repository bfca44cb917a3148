import jax
import jax.numpy as jnp
import numpy as np
import optax

import spartax as sx
from spartax import prune, train
from spartax.records import Evidence, Layout

GIVEN = Evidence({"w": Layout((0,), (1,))})


def test_scores_add_up_movement():
    """Two inputs of one logit pair: the small weight that grows is kept, the large one that shrinks is removed."""
    kernel = jnp.array([[-0.125, 0.125], [1.0, -1.0]])
    params, state = prune.movement(0.25).init({"w": kernel}, GIVEN)
    np.testing.assert_array_equal(params["w"].scores, np.zeros((2, 2)))
    np.testing.assert_array_equal(sx.dense(params["w"]), [[-0.125, 0.125], [1.0, 0]])  # ties: lowest flat index
    apply = sx.compressed(lambda params, x: x @ params["w"])
    tx, rate = optax.sgd(0.1), 0.1
    step = train.make_step(train.clean(), tx, apply)
    training = train.init_state(params, tx)
    x, y = jnp.array([[1.0, 1.0]]), jnp.array([1])
    scores, weight = np.zeros((2, 2)), np.asarray(kernel, np.float64)
    for _ in range(3):
        mask = np.zeros(4, bool)
        mask[np.argsort(-scores.ravel(), kind="stable")[:3]] = True
        mask = mask.reshape(2, 2)
        logits = (x @ (weight * mask))[0]
        gradient = np.outer([1.0, 1.0], np.exp(logits) / np.exp(logits).sum() - [0, 1])
        scores, weight = scores - rate * gradient * weight, weight - rate * gradient * mask
        training, _ = step(training, jax.random.key(0), x, y)
    after = training.variables["w"]
    np.testing.assert_allclose(after.scores, scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.weight, weight, rtol=1e-5)
    final, _, info = prune.movement(0.5).update(training.variables, state, GIVEN)
    np.testing.assert_array_equal(prune.finish(final)["w"].mask, [[True, True], [False, False]])
    assert info["w"] == {
        "method": "movement",
        "kept": 2,
        "size": 4,
        "sparsity": 0.5,
        "outputs_without_input": 0,
        "connected": None,
        "warnings": ["nearly empty: 2 of 4 entries are left"],
    }


def test_a_schedule_begins_dense_and_ends_at_the_sparsity_without_retracing():
    transform = prune.movement(0.75, schedule=prune.cubic(begin=2, end=8, every=2))
    params, state = transform.init({"w": jnp.ones((4, 4))}, GIVEN._replace(step=0))
    traces = []

    @jax.jit
    def count(params):
        traces.append(1)
        return jnp.sum(sx.dense(params["w"]))

    kept = []
    for step in (0, 2, 4, 8, 100):
        params, state, _ = transform.update(params, state, GIVEN._replace(step=step))
        kept.append(int(count(params)))
    assert kept[0] == kept[1] == 16
    assert kept[2:] == [8, 4, 4]
    assert len(traces) == 1
    assert transform.due(4)
    assert not transform.due(3)
