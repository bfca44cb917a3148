import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import attacks
from spartax.attacks import losses
from tests.attacks import nets


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_model_two_classes_is_closed_form(norm):
    logits_fn, weight, x, y = nets.linear(classes=2)
    x_adv = nets.run(attacks.fgsm(0.05, norm), logits_fn, x, y)
    away = np.where(np.asarray(y)[:, None] == 0, weight[:, 1] - weight[:, 0], weight[:, 0] - weight[:, 1])
    step = np.sign(away) if norm == "linf" else away / np.linalg.norm(away, axis=1, keepdims=True)
    np.testing.assert_allclose(x_adv.reshape(8, -1), x.reshape(8, -1) + 0.05 * step, atol=1e-6)


def test_the_loss_is_the_one_given():
    logits_fn, weight, x, y = nets.linear(classes=5)
    x_adv = nets.run(attacks.fgsm(0.01, "l2", loss=losses.margin), logits_fn, x, y)
    runner_up = jnp.argsort(logits_fn(x), axis=1)[:, -2]
    away = np.asarray(weight.T)[np.asarray(runner_up)] - np.asarray(weight.T)[np.asarray(y)]
    step = 0.01 * away / np.linalg.norm(away, axis=1, keepdims=True)
    np.testing.assert_allclose((x_adv - x).reshape(8, -1), step, atol=1e-6)


def test_precision_is_raised_inside_the_attack():
    seen = []

    def logits_fn(x):
        seen.append(jax.config.jax_default_matmul_precision)
        return x.reshape(x.shape[0], -1)[:, :3]

    attacks.fgsm(0.1)(jax.random.key(0), logits_fn, jnp.full((2, 2, 2, 1), 0.5), jnp.array([0, 1]))
    assert set(seen) == {"highest"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": jnp.full((2, 2, 2, 1), 1.5)}, "x must lie in"),
        ({"x": jnp.full((2, 2, 2, 1), jnp.nan)}, "x must lie in"),
        ({"x": jnp.zeros((2, 2, 2, 1), jnp.uint8)}, "x must be a floating array"),
        ({"y": jnp.array([0, 3])}, r"y must lie in \[0, 3\)"),
        ({"y": jnp.array([0.0, 1.0])}, "y must be an integer array"),
        ({"y": jnp.array([0, 1, 2])}, "y must have shape"),
        ({"index": jnp.arange(3)}, "index must have shape"),
        ({"logits_fn": lambda x: x}, "logits_fn must return"),
    ],
)
def test_bad_input_is_refused(changed, said):
    given = {
        "key": jax.random.key(0),
        "logits_fn": lambda x: x.reshape(x.shape[0], -1)[:, :3],
        "x": jnp.full((2, 2, 2, 1), 0.5),
        "y": jnp.array([0, 1]),
    }
    with pytest.raises(ValueError, match=said):
        attacks.fgsm(0.1)(**{**given, **changed})


def test_known_labels_are_checked_while_tracing():
    logits_fn, _, x, _ = nets.linear()
    y = jnp.full(8, 9)
    with pytest.raises(ValueError, match="y must lie in"):
        jax.jit(lambda x: attacks.fgsm(0.1)(jax.random.key(0), logits_fn, x, y))(x)
