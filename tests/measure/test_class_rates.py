"""Rates of one class against loops over examples."""

import numpy as np
import pytest

from spartax import measure


@pytest.mark.parametrize(("classes", "decimals"), [(3, 6), (2, 0)])
def test_rates_against_loops(classes, decimals):
    """Whole numbers and two classes: many examples have the same log-odds."""
    rng = np.random.default_rng(0)
    logits, y = np.round(rng.normal(size=(40, classes)), decimals), rng.integers(0, classes, 40)
    for label in range(classes):
        odds = [z[label] - np.log(sum(np.exp(v) for k, v in enumerate(z) if k != label)) for z in logits]
        own, rest = ([o for o, t in zip(odds, y) if (t == label) == inside] for inside in (True, False))
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in own for b in rest]
        assert (0.5 in pairs) == (decimals == 0)
        found = measure.class_rates(logits, y, label, threshold=-0.5)
        assert found.misses == pytest.approx(np.mean([o <= -0.5 for o in own]))
        assert found.false_alarms == pytest.approx(np.mean([o > -0.5 for o in rest]))
        assert found.auc == pytest.approx(np.mean(pairs))


def test_two_classes_at_zero_are_the_largest_logit():
    logits, y = np.array([[1.0, 2.0], [3.0, 1.0], [0.0, -1.0], [0.0, 5.0]]), np.array([1, 1, 0, 0])
    assert measure.class_rates(logits, y, 1) == (0.5, 0.5, 0.25)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="label must be one of"):
        measure.class_rates(np.zeros((2, 2)), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="y must hold examples of class 1 and others; got 2 of 2"):
        measure.class_rates(np.zeros((2, 2)), np.array([1, 1]), 1)
