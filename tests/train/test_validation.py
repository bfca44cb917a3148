import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spartax import train
from tests.train.test_averages import pull

KEY = jax.random.key(0)
BATCH = (np.eye(2, dtype=np.float32), np.zeros(2, np.int32))
TX = optax.chain(optax.sgd(1.0), train.ema(0.5))
STEP = train.make_step(pull, TX, lambda params, x: x)


def run(count, state=None, **options):
    state = train.init_state({"w": jnp.array([10.0])}, TX) if state is None else state
    return train.fit(STEP, state, [BATCH] * count, KEY, validate=train.validation(**options), progress=False)


def near_six(variables):
    return -float(abs(variables["w"][0] - 6.1))


def test_the_best_weights_are_kept_and_patience_ends_the_run():
    """The weight is 10 - n after n steps; of those looked at, 6 is nearest to 6.1."""
    state, losses = run(20, score=near_six, every=2, patience=2)
    assert len(losses) == 8
    assert (state.best.step, state.best.waited) == (4, 2)
    assert state.best.score == pytest.approx(-0.1, abs=1e-5)
    assert float(state.best.variables["w"][0]) == 6
    assert float(state.variables["w"][0]) == 2


def test_without_patience_all_is_done():
    state, losses = run(20, score=near_six, every=2)
    assert len(losses) == 20
    assert state.best.step == 4


def test_the_end_is_looked_at_once():
    seen = []

    def score(variables):
        seen.append(float(variables["w"][0]))
        return -seen[-1]

    state, _ = run(3, score=score, every=10)  # never on the way
    assert (state.best.score, state.best.step, float(state.best.variables["w"][0])) == (-7, 3, 7)
    run(5, score=score, every=2)
    run(4, score=score, every=2)
    assert seen == [7, 8, 6, 5, 8, 6]


def test_a_score_that_fails_leaves_the_state_in_the_error():
    for count, every, at in ((3, 2, 2), (3, 5, 3)):  # on the way and at the end
        with pytest.raises(ValueError, match=f"got nan at step {at}") as caught:
            run(count, score=lambda variables: float("nan"), every=every)
        assert (int(caught.value.state.step), float(caught.value.state.variables["w"][0])) == (at, 10 - at)
        np.testing.assert_array_equal(caught.value.losses, 10 - np.arange(at))


def test_averages_can_be_looked_at():
    """The averages are 9.5, 8.75, 7.875, 6.9375, 5.97."""
    state, _ = run(8, score=near_six, every=1, weights=train.averaged)
    assert state.best.step == 5
    assert float(state.best.variables["w"][0]) == pytest.approx(5.96875)


def test_a_continued_run_remembers_its_best():
    state, _ = run(6, score=near_six, every=2)
    state, losses = run(6, state, score=near_six, every=2, patience=2)
    assert (len(losses), state.best.step) == (2, 4)


def test_bad_use_is_refused():
    with pytest.raises(ValueError, match="patience must be an integer of at least 1; got 0"):
        train.validation(near_six, every=1, patience=0)
    with pytest.raises(ValueError, match="score must be a finite number; got nan at step 2"):
        run(3, score=lambda variables: float("nan"), every=2)
    with pytest.raises(ValueError, match="score must be a finite number; got nan at step 2"):
        run(3, score=lambda variables: {"gap": 0.5}, every=2)
