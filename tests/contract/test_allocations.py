"""What every allocation obeys."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from spartax import catalog, prune
from tests import plugs

SCORES = {p: jnp.asarray(np.abs(w)) for p, w in plugs.draw().items()}
GIVEN = plugs.evidence()
TOTAL = sum(s.size for s in SCORES.values())


@pytest.fixture(params=catalog.names(prune.allocations))
def allocation(request):
    return catalog.load(prune.allocations, request.param)()


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.98])
def test_counts(allocation, sparsity):
    counts = allocation(SCORES, sparsity, GIVEN)
    assert list(counts) == list(SCORES)
    assert all(type(k) is int and 0 <= k <= SCORES[p].size for p, k in counts.items())
    assert abs(sum(counts.values()) - round((1 - sparsity) * TOTAL)) <= len(counts)
    assert counts == allocation(SCORES, sparsity, GIVEN)
    if sparsity == 0.0:
        assert counts == {p: s.size for p, s in SCORES.items()}


def test_more_sparsity_never_keeps_more(allocation):
    counts = [allocation(SCORES, s, GIVEN) for s in (0.2, 0.5, 0.8, 0.95)]
    for more, less in itertools.pairwise(counts):
        assert all(less[p] <= more[p] for p in SCORES)


def test_one_weight_gets_everything(allocation):
    one = {"dense": SCORES["dense"]}
    assert allocation(one, 0.75, plugs.evidence(one)) == {"dense": 120}
