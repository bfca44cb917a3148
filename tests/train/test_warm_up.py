import numpy as np
import optax
import pytest

from spartax import train


def test_a_line_and_then_the_schedule_from_its_beginning():
    rate = train.warm_up(optax.piecewise_constant_schedule(0.4, {2: 0.1}), 4, 10)
    np.testing.assert_allclose([rate(n) for n in range(8)], [0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.04, 0.04], rtol=1e-6)


def test_a_training_shorter_than_its_warm_up_is_refused():
    with pytest.raises(ValueError, match="steps of the warm-up must be fewer than the 10 of the training; got 10"):
        train.warm_up(optax.constant_schedule(0.1), 10, 10)
