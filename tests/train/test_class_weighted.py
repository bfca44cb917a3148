import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import train

KEY = jax.random.key(0)


def value(loss, logits, y):
    network = train.Network(None, lambda x: (x, {"seen": x.shape[0]}))
    total, updates = loss(network, KEY, jnp.asarray(logits, jnp.float32), jnp.asarray(y, jnp.int32))
    assert updates == {"seen": len(y)}
    return float(total)


def test_two_classes_by_hand():
    """-w log p for positives, -log(1 - p) for negatives, and the hinge of the two pairs."""
    logits, y = [[0.0, 1.0], [0.0, 0.5], [0.0, -2.0]], [1, 0, 0]
    p = 1 / (1 + np.exp(-np.array([1.0, 0.5, -2.0])))
    entropy = -(3 * np.log(p[0]) + np.log(1 - p[1]) + np.log(1 - p[2])) / 3
    hinge = (0.5**2 + 0.0) / 2  # 1 - (1 - 0.5), and 1 - (1 + 2) < 0
    loss = train.class_weighted((1, 3), pairwise=0.7, important=(1,))
    np.testing.assert_allclose(value(loss, logits, y), entropy + 0.7 * hinge, rtol=1e-6)


def test_pair_hinge_is_the_brute_force_over_pairs():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(9, 4)), rng.integers(0, 4, 9)
    odds = np.stack([z - np.log(np.exp(logits).sum(1) - np.exp(z)) for z in logits.T])
    hinges = [
        np.mean([max(0, 1 - (odds[c, i] - odds[c, j])) ** 2 for i in range(9) for j in range(9) if y[i] == c != y[j]])
        for c in (1, 3)
    ]
    both, plain = train.class_weighted((1,) * 4, pairwise=2.0, important=(1, 3)), train.class_weighted((1,) * 4)
    np.testing.assert_allclose(value(both, logits, y) - value(plain, logits, y), 2 * np.mean(hinges), rtol=1e-5)
    np.testing.assert_allclose(value(plain, logits, y), value(train.clean(), logits, y), rtol=1e-6)


def test_a_batch_without_pairs_adds_nothing():
    logits = np.random.default_rng(1).normal(size=(3, 2))
    pairs, plain = train.class_weighted((1, 2), pairwise=1.0, important=(1,)), train.class_weighted((1, 2))
    assert value(pairs, logits, [1, 1, 1]) == value(plain, logits, [1, 1, 1])


def test_under_attack_it_is_the_loss_of_the_attacked_images():
    """For weights under learnt scores as for any others: what is attacked is the pruned network."""
    leaf = sx.Scored(jnp.array([[1.0, -1.0], [0.5, 2.0]]), jnp.array([[3.0, 1.0], [2.0, 4.0]]), jnp.int32(2))
    x, y = jnp.array([[1.0, 2.0], [0.5, -1.0], [2.0, 0.0]]), jnp.array([0, 1, 1])
    apply = lambda x: x @ sx.dense(leaf)  # noqa: E731
    attack = lambda key, logits_fn, x, y: x - 0.3 * jnp.sign(jax.grad(lambda x: logits_fn(x)[:, 1].sum())(x))  # noqa: E731
    base = train.class_weighted((1, 3), pairwise=0.5, important=(1,))
    found, _ = train.pgd_at(attack, base)(train.Network(apply, lambda x: (apply(x), {})), KEY, x, y)
    moved = np.asarray(x) - 0.3 * np.array([0.0, 1.0])  # the mask leaves w[0, 0] and w[1, 1]
    np.testing.assert_allclose(found, value(base, moved * [1.0, 2.0], y), rtol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_weight_removes_false_negatives(weight):
    """Overlapping classes on a line: the weighted class gives up false positives, never misses one of its own."""
    x = jnp.array([[-3.0], [-2.0], [-0.5], [0.2], [-0.2], [0.5], [2.0], [0.8]])
    y = jnp.array([0, 0, 0, 0, 1, 1, 1, 0])
    tx = optax.adam(0.1)
    apply = lambda params, x: x @ params["kernel"] + params["bias"]  # noqa: E731
    state = train.init_state({"kernel": jnp.zeros((1, 2)), "bias": jnp.zeros(2)}, tx)
    step = train.make_step(train.class_weighted((1, weight)), tx, apply)
    for _ in range(100):
        state, _ = step(state, KEY, x, y)
    missed = np.sum(np.argmax(apply(state.variables, x), 1)[np.asarray(y) == 1] == 0)
    assert missed == (0 if weight > 1 else 1)


def test_bad_options_are_named():
    for weights in ((1, 0), (1, -2), (1, np.inf), 3.0):
        with pytest.raises(ValueError, match="weights must be positive"):
            train.class_weighted(weights)
    with pytest.raises(ValueError, match="pairwise and important"):
        train.class_weighted((1, 2), pairwise=1.0)
    with pytest.raises(ValueError, match="pairwise and important"):
        train.class_weighted((1, 2), important=(1,))
    with pytest.raises(ValueError, match="important must be one of"):
        train.class_weighted((1, 2), pairwise=1.0, important=(2,))
    with pytest.raises(ValueError, match="each of 3 classes; got 2"):
        value(train.class_weighted((1, 2)), np.zeros((2, 3)), [0, 1])
