import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import attacks
from spartax.attacks import losses
from tests.attacks import nets

KEY = jax.random.key(0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_model_two_classes_is_closed_form(norm):
    logits_fn, weight, x, y = nets.linear(classes=2)
    x_adv = nets.run(attacks.pgd(0.05, norm, steps=20, step_size=0.1), logits_fn, x, y)
    away = np.where(np.asarray(y)[:, None] == 0, weight[:, 1] - weight[:, 0], weight[:, 0] - weight[:, 1])
    step = np.sign(away) if norm == "linf" else away / np.linalg.norm(away, axis=1, keepdims=True)
    reached = losses.margin(logits_fn(x_adv), y)
    np.testing.assert_allclose(
        reached, losses.margin(logits_fn((x.reshape(8, -1) + 0.05 * step).reshape(x.shape)), y), rtol=1e-3
    )


def test_one_deterministic_run_follows_the_formula():
    logits_fn, x, y = nets.convolution()
    x_adv = nets.run(attacks.pgd(0.03, steps=3, step_size=0.02, random_start=False), logits_fn, x, y)
    moved, candidates = np.asarray(x), []
    look = jax.jit(lambda x: (losses.cross_entropy(logits_fn(x), y), jnp.argmax(logits_fn(x), 1) != y))
    slope = jax.jit(jax.grad(lambda x: losses.cross_entropy(logits_fn(x), y).sum()))
    for _ in range(4):
        candidates.append((moved, *map(np.asarray, look(moved))))
        moved = np.clip(np.clip(moved + 0.02 * np.sign(slope(moved)), x - 0.03, x + 0.03), 0, 1)
    for row in range(8):
        best = max(candidates, key=lambda c: (bool(c[2][row]), float(c[1][row])))
        np.testing.assert_allclose(x_adv[row], best[0][row], atol=1e-6)


def test_restarts_never_hurt_and_sometimes_help():
    logits_fn, x, y = nets.convolution()

    def loss(restarts):
        x_adv = nets.run(attacks.pgd(0.2, steps=2, restarts=restarts, loss=losses.margin), logits_fn, x, y)
        return np.asarray(losses.margin(logits_fn(x_adv), y))

    one, five = loss(1), loss(5)
    assert np.all(five >= one - 1e-6)
    assert np.any(five > one + 1e-3)


def test_targets_are_reached():
    logits_fn, _, x, y = nets.linear(scale=3.0)
    targets = (y + 2) % 5
    x_adv = nets.run(attacks.pgd(0.5, steps=30, targeted=True), logits_fn, x, y, targets=targets)
    np.testing.assert_array_equal(jnp.argmax(logits_fn(x_adv), 1), targets)


def test_a_model_that_draws_gets_one_key_per_example():
    logits_fn, x, y = nets.convolution()

    def noisy(x, key):  # a cheap function of the key stands in for noise
        return logits_fn(x) + 0.1 * (jax.random.key_data(key)[0] % 97).astype(float) * jnp.arange(4)

    attack = attacks.pgd(0.05, steps=3)
    whole, kept = nets.run(attack, noisy, x, y), np.array([4, 2, 3, 3, 2, 4, 4, 2])
    part = nets.run(attack, noisy, x[kept], y[kept], index=jnp.asarray(kept))
    np.testing.assert_allclose(whole[kept], part, atol=1e-6)
    assert float(jnp.abs(whole - nets.run(attack, logits_fn, x, y)).max()) > 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"restarts": 2, "random_start": False}, "restarts must be 1 without random_start"),
        ({"step_size": -0.1}, "step_size must be in"),
        ({"eps": -1.0}, "eps must be in"),
        ({"norm": "inf"}, "Did you mean 'linf'"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        attacks.pgd(**{"eps": 0.1, **options})


def test_targets_go_with_targeted():
    logits_fn, _, x, y = nets.linear()
    with pytest.raises(ValueError, match="targets must be given exactly when targeted"):
        attacks.pgd(0.1)(KEY, logits_fn, x, y, targets=y)
    with pytest.raises(ValueError, match="targets must be given exactly when targeted"):
        attacks.pgd(0.1, targeted=True)(KEY, logits_fn, x, y)
    with pytest.raises(ValueError, match="targets must lie in"):
        attacks.pgd(0.1, targeted=True)(KEY, logits_fn, x, y, targets=y + 5)
