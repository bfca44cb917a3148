import jax.numpy as jnp
import pytest

from spartax import prune
from spartax.records import Evidence
from tests.prune import test_rate_distortion as small

SCORES = {"a": jnp.arange(1.0, 11.0), "b": 2 * jnp.arange(1.0, 11.0)}
TABLE = {"a": {1.0: 4.0, 5: 3.0, 0.2: 1.0}, "b": {10: 4.0, 0.5: 3.5, 0.2: 1.0}}


def test_known_answer():
    """Removed scores: a 0, 15, 36; b 0, 30, 72. Seconds: a 4, 3, 1; b 4, 3.5, 1."""
    allocate = prune.by_latency(TABLE)
    assert allocate(SCORES, 0.0, Evidence({})) == {"a": 10, "b": 10}
    assert allocate(SCORES, 1 - 7.2 / 8, Evidence({})) == {"a": 5, "b": 10}
    assert allocate(SCORES, 1 - 4.6 / 8, Evidence({})) == {"a": 2, "b": 5}
    assert allocate(SCORES, 1 - 5.0 / 8, Evidence({})) == {"a": 2, "b": 10}
    assert allocate(SCORES, 1 - 2.1 / 8, Evidence({})) == {"a": 2, "b": 2}
    with pytest.raises(ValueError, match=r"leaves 1\.6 s, but the fastest of the table takes 2 s"):
        allocate(SCORES, 0.8, Evidence({}))


def test_a_layer_with_few_entries_left_takes_the_fastest_format_that_holds_them():
    """The five lowest of `a` are gone: nothing is lost by 5 entries in 3 s, nor in 2 s where the whole takes that."""
    scores = {**SCORES, "a": jnp.where(SCORES["a"] > 5, SCORES["a"], -jnp.inf)}
    assert prune.by_latency(TABLE)(scores, 0.0, Evidence({})) == {"a": 5, "b": 10}
    assert prune.by_latency(TABLE)(scores, 1 - 6.9 / 8, Evidence({})) == {"a": 2, "b": 10}
    whole = {**TABLE, "a": {1.0: 2.0, 5: 3.0, 0.2: 1.0}}
    assert prune.by_latency(whole)(scores, 1 - 5.9 / 6, Evidence({})) == {"a": 2, "b": 10}
    assert prune.by_latency(whole)(scores, 0.0, Evidence({})) == {"a": 5, "b": 10}


def test_measured_errors_decide_instead_of_scores():
    """Equal times: the layer whose errors count most stays whole, whatever its scores."""
    table = {path: {1.0: 3.0, 0.5: 2.0, 0.1: 1.0} for path in small.SCORES}
    scores = {**small.SCORES, "quiet": 100 * small.SCORES["quiet"]}
    by_scores, by_errors = (
        prune.by_latency(table, measured)(scores, 1 - 6 / 9, small.given()) for measured in (False, True)
    )
    assert by_errors["loud"] == 30
    assert by_errors["quiet"] == 3
    assert by_scores["quiet"] == 30
    assert prune.prune(prune.magnitude(), 0.5, prune.by_latency(table, True)).needs == {"objective", "originals"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "at least one path"),
        ({"a": {1.5: 1.0}}, r"table\['a'\]: a kept fraction must be in"),
        ({"a": {-1: 1.0}}, r"table\['a'\]: a kept count must be an integer"),
        ({"a": {1.0: -1.0}}, r"table\['a'\]\[1.0\] must be in"),
        ({"a": {1.0: float("nan")}}, r"table\['a'\]\[1.0\] must be in"),
        ({"a": {1.0: 1.0}}, "'b' differs"),
        ({**TABLE, "c": {1.0: 1.0}}, "'c' differs"),
        ({**TABLE, "b": {0.5: 1.0}}, r"table\['b'\] must hold the time of the whole weight of 10 entries"),
    ],
)
def test_bad_tables(table, message):
    with pytest.raises(ValueError, match=message):
        prune.by_latency(table)(SCORES, 0.5, Evidence({}))
