import jax.numpy as jnp
import numpy as np
import pytest

from spartax.attacks import losses, threats
from spartax.attacks.cw import cw
from tests.attacks import nets


def nearest(weight, logits, y, order):
    """Distance of each image to the nearest decision boundary of a linear model, in the dual of the weights' norm."""
    weight, logits = np.asarray(weight, np.float64), np.asarray(logits, np.float64)
    result = []
    for row, label in zip(logits, np.asarray(y)):
        others = [k for k in range(len(row)) if k != label]
        result.append(
            min((row[label] - row[k]) / np.linalg.norm(weight[:, label] - weight[:, k], order) for k in others)
        )
    return np.array(result)


@pytest.mark.parametrize(("norm", "order", "typical", "worst"), [("l2", 2, 1.002, 1.2), ("linf", 1, 1.2, 1.6)])
def test_linear_model_is_closed_form(norm, order, typical, worst):
    logits_fn, weight, x, y = nets.linear(scale=2.0, classes=2)
    x_adv = nets.run(cw(norm=norm, steps=200), logits_fn, x, y)
    expected = nearest(weight, logits_fn(x), y, order)
    reached = np.asarray(threats.lengths(x_adv - x, norm))
    assert bool(jnp.all(jnp.argmax(logits_fn(x_adv), 1) != y))
    assert np.all(reached >= expected * (1 - 1e-4))
    assert np.median(reached / expected) <= typical
    assert np.max(reached / expected) <= worst


def test_only_images_within_eps_are_returned_and_wrong_ones_stay():
    logits_fn, weight, x, y = nets.linear(scale=2.0, classes=2)
    y = y.at[0].set(1 - y[0])  # misclassified as it is
    expected = nearest(weight, logits_fn(x), jnp.argmax(logits_fn(x), 1), 2)
    eps = float(np.median(expected[1:])) * 1.2
    x_adv = nets.run(cw(eps, steps=200), logits_fn, x, y)
    moved = np.asarray(threats.lengths(x_adv - x, "l2"))
    assert moved[0] == 0
    np.testing.assert_array_equal(moved[1:] > 0, expected[1:] * 1.05 < eps)
    assert moved.max() <= eps


def test_confidence_is_the_lead_of_the_wrong_logit():
    logits_fn, _, x, y = nets.linear(scale=2.0)
    x_adv = nets.run(cw(confidence=1.0, steps=200), logits_fn, x, y)
    lead = np.asarray(losses.margin(logits_fn(x_adv), y))
    assert np.all(lead >= 1.0)
    assert np.median(lead) < 1.2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"norm": "l1"}, "norm must be one of 'l2', 'linf'"),
        ({"eps": -1.0}, "eps must be in"),
        ({"steps": 0}, "steps must be"),
        ({"searches": 0}, "searches must be"),
        ({"learning_rate": -0.1}, "learning_rate must be in"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        cw(**options)
