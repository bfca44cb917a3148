"""What every schedule obeys."""

import pytest

from spartax import catalog, prune
from spartax.records import Schedule

SCHEDULES = {
    "ac_dc": lambda: prune.ac_dc(warmup=5, sparse=4, dense=3, end=20),
    "constant": lambda: prune.constant(every=7),
    "cubic": lambda: prune.cubic(begin=3, end=30, every=4, initial=0.25),
    "exponential": lambda: prune.exponential(rounds=5, every=3, begin=2),
    "one_shot": lambda: prune.one_shot(at=11),
}
STEPS, FINAL = range(60), 0.8


def test_every_schedule_is_here():
    assert set(catalog.names(prune.schedules)) == set(SCHEDULES)


@pytest.fixture(params=list(SCHEDULES))
def schedule(request):
    return SCHEDULES[request.param]()


def test_sparsity_lies_between_zero_and_the_final_one_and_ends_there(schedule):
    assert isinstance(schedule, Schedule)
    values = [schedule.sparsity(FINAL, step) for step in STEPS]
    assert all(0 <= v <= FINAL for v in values)
    assert values[-20:] == [FINAL] * 20


def test_sparsity_changes_only_where_masks_are_refreshed(schedule):
    changes = {step for step in STEPS[1:] if schedule.sparsity(FINAL, step) != schedule.sparsity(FINAL, step - 1)}
    assert changes <= {step for step in STEPS if schedule.due(step)}
    assert schedule.due(0) or schedule.sparsity(FINAL, 0) == 0  # the masks of `init` keep everything
