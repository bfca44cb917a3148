"""What every factorization obeys."""

import jax.numpy as jnp
import numpy as np
import pytest

from spartax import catalog, lowrank
from spartax.arrays import nbytes
from spartax.lowrank import fitting
from tests import plugs

WEIGHTS, GIVEN = plugs.draw(), plugs.evidence()
NOT_EXACT = {"cp"}  # its full rank is that of the matrix, which says nothing of a tensor


@pytest.fixture(params=catalog.names(lowrank.factorizations), scope="module")
def factorization(request):
    made = catalog.load(lowrank.factorizations, request.param)()
    made_of = {p: made.unfold(w, GIVEN.layouts[p]) for p, w in WEIGHTS.items()}
    return request.param, made, {p: parts for p, parts in made_of.items() if parts}


def full(parts):
    return {name: min(m.shape[-2:]) for name, m in parts.items()}


def built(made, path, ranks):
    return fitting.build(made, WEIGHTS, {path: ranks}, GIVEN)[path]


def error(made, path, ranks):
    leaf = plugs.dense(built(made, path, ranks))
    return float(np.linalg.norm(np.asarray(leaf - WEIGHTS[path])) / np.linalg.norm(np.asarray(WEIGHTS[path])))


def test_splits_some_weight_and_its_shape_and_dtype_stay(factorization):
    _, made, parts = factorization
    assert parts
    for path, own in parts.items():
        leaf = built(made, path, dict.fromkeys(own, 2))
        assert (leaf.shape, leaf.dtype) == (WEIGHTS[path].shape, WEIGHTS[path].dtype)
        assert nbytes(leaf) < nbytes(WEIGHTS[path])


def test_full_rank_is_exact_and_less_rank_is_not(factorization):
    name, made, parts = factorization
    for path, own in parts.items():
        if name not in NOT_EXACT:
            assert error(made, path, full(own)) < 2e-3
        assert error(made, path, dict.fromkeys(own, 2)) > 0.05


def test_what_it_needs_is_named(factorization):
    _, made, parts = factorization
    path = next(iter(parts))
    for need in made.needs:
        with pytest.raises(ValueError, match=f"{need} is needed"):
            fitting.build(made, WEIGHTS, {path: dict.fromkeys(parts[path], 2)}, GIVEN._replace(**{need: None}))


def test_the_side_that_is_stored_first_does_not_matter(factorization):
    """A kernel and its transpose give factors of one product."""
    _, made, parts = factorization
    if "outputs_first" not in parts:
        pytest.skip("splits convolution kernels only")
    weight = WEIGHTS["outputs_first"]
    other = GIVEN._replace(layouts={"outputs_first": plugs.LAYOUTS["dense"]})
    ranks = {"outputs_first": {"": 4}}
    ours = fitting.build(made, {"outputs_first": weight}, ranks, GIVEN)["outputs_first"]
    turned = fitting.build(made, {"outputs_first": jnp.asarray(weight.T)}, ranks, other)["outputs_first"]
    np.testing.assert_allclose(plugs.dense(ours), plugs.dense(turned).T, atol=2e-3)
