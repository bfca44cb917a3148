"""What every rank rule obeys."""

import jax.numpy as jnp
import numpy as np
import pytest

from spartax import catalog, lowrank
from tests import plugs

WEIGHTS = plugs.draw()
MATRICES = {
    "dense": WEIGHTS["dense"],
    "conv": WEIGHTS["conv"].reshape(72, 20),
    "stack": WEIGHTS["stack"],
    "outputs_first": WEIGHTS["outputs_first"],
}


@pytest.fixture(params=catalog.names(lowrank.ranks))
def ranks(request):
    return catalog.load(lowrank.ranks, request.param)()


def test_ranks_are_integers_that_fit(ranks):
    chosen = ranks(MATRICES, plugs.evidence())
    assert chosen.keys() <= MATRICES.keys()
    for path, rank in chosen.items():
        assert type(rank) is int
        assert 1 <= rank <= min(MATRICES[path].shape[-2:])
    assert chosen == ranks(MATRICES, plugs.evidence())


@pytest.fixture
def of_the_matrix(request, ranks):
    """Rules that look at the matrix alone, not at what the network does with it."""
    if request.node.callspec.params["ranks"] in {"sensitivity"}:
        pytest.skip("measured on the network")
    return ranks


def test_the_size_of_the_numbers_does_not_matter(of_the_matrix):
    larger = {path: jnp.asarray(8.0 * np.asarray(m)) for path, m in MATRICES.items()}
    assert of_the_matrix(larger, plugs.evidence()) == of_the_matrix(MATRICES, plugs.evidence())


def test_the_sides_of_a_matrix_are_alike(of_the_matrix):
    turned = {path: jnp.asarray(np.swapaxes(m, -1, -2)) for path, m in MATRICES.items()}
    assert of_the_matrix(turned, plugs.evidence()) == of_the_matrix(MATRICES, plugs.evidence())
