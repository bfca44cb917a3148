import jax.numpy as jnp
import pytest

from spartax import prune
from spartax.records import Evidence


def layer(outliers, size=100):
    """One score of 100 for every outlier, 1 for the others: their mean is below 11."""
    return jnp.ones(size).at[:outliers].set(100.0)


def test_known_answer():
    """Shares 0.1, 0.05 and 0: shifts 0.16, 0.08 and 0 around their mean 0.08."""
    scores = {"a": layer(10), "b": layer(5), "c": layer(0)}
    assert prune.owl()(scores, 0.5, Evidence({})) == {"a": 58, "b": 50, "c": 42}
    assert prune.owl(band=0.2)(scores, 0.5, Evidence({})) == {"a": 70, "b": 50, "c": 30}
    assert prune.owl(outlier=10)(scores, 0.5, Evidence({})) == {"a": 46, "b": 60, "c": 44}  # 44.7, 60.7, 44.7


def test_the_total_is_exact_for_layers_of_different_sizes():
    """The shifts 0.16 and 0 have the weighted mean 0.04."""
    scores = {"a": layer(10), "c": layer(0, 300)}
    assert prune.owl()(scores, 0.5, Evidence({})) == {"a": 62, "c": 138}


def test_entries_that_are_gone_are_not_outliers():
    """Shares of what is left: 0.1, 0.05 and 0; the shifts 0.16, 0.08 and 0 have the weighted mean 0.1."""
    scores = {"a": jnp.concatenate([layer(10), jnp.full(100, -jnp.inf)]), "b": layer(5), "c": layer(0)}
    assert prune.owl()(scores, 0.5, Evidence({})) == {"a": 112, "b": 48, "c": 40}


def test_the_band_narrows_at_the_ends():
    scores = {"a": layer(10), "c": layer(0)}
    assert prune.owl(band=0.5)(scores, 0.9, Evidence({})) == {"a": 15, "c": 5}
    assert prune.owl(band=0.5)(scores, 0.1, Evidence({})) == {"a": 95, "c": 85}
    assert prune.owl()({"a": layer(3), "b": layer(3)}, 0.7, Evidence({})) == {"a": 30, "b": 30}


@pytest.mark.parametrize("options", [{"outlier": 0.0}, {"band": 0.6}, {"band": -0.1}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="must be in"):
        prune.owl(**options)
