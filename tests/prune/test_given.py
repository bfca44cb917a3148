import jax.numpy as jnp
import pytest

from spartax import prune
from spartax.records import Evidence

SCORES = {path: jnp.ones(100) for path in ("block/a/kernel", "block/b/kernel", "block2/kernel", "head")}


def test_the_longest_prefix_counts_and_the_rest_get_the_sparsity():
    allocation = prune.given({"block": 0.5, "block/b/kernel": 0.9, "head": 0.0})
    found = allocation(SCORES, 0.7, Evidence({}))
    assert found == {"block/a/kernel": 50, "block/b/kernel": 10, "block2/kernel": 30, "head": 100}


def test_what_no_weight_has_is_named():
    with pytest.raises(ValueError, match=r"got 'block/c'\. Did you mean 'block/"):
        prune.given({"block/c": 0.5})(SCORES, 0.7, Evidence({}))


def test_bad_sparsities():
    with pytest.raises(ValueError, match="at least one path"):
        prune.given({})
    with pytest.raises(ValueError, match=r"sparsities\['head'\] must be in"):
        prune.given({"head": 1.5})
