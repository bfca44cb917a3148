"""What every sensitivity obeys."""

import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import catalog, quantize
from spartax.records import Evidence, Objective
from tests import plugs

WEIGHTS, IMAGES = plugs.draw(), plugs.batch()[0]
LABELS = jnp.argmax(plugs.network(WEIGHTS, IMAGES), axis=1)  # its own, so that every error costs loss
OBJECTIVE = Objective(plugs.network, ((IMAGES, LABELS),), plugs.cross_entropy)
GIVEN = plugs.evidence()._replace(objective=OBJECTIVE)
GRIDS = [quantize.integer(bits) for bits in (2, 4, 8)]
OPTIONS = {"hessian_trace": {"probes": 4}, "pruning_sensitivity": {"sparsities": (0.5, 0.9)}}


@pytest.fixture(scope="module")
def candidates():
    """The leaf of every weight on each grid."""
    found = [plugs.run(quantize.quantize(grid), WEIGHTS, GIVEN)[0] for grid in GRIDS]
    return {path: [params[path] for params in found] for path in WEIGHTS}


@pytest.fixture(scope="module", params=catalog.names(quantize.bits))
def sensitivity(request):
    return catalog.load(quantize.bits, request.param)(**OPTIONS.get(request.param, {}))


def test_losses_fall_with_bits_and_vanish_with_the_error(sensitivity, candidates):
    with_exact = {path: [*leaves, WEIGHTS[path]] for path, leaves in candidates.items()}
    losses = sensitivity.losses(WEIGHTS, with_exact, GIVEN)
    assert list(losses) == list(WEIGHTS)
    for row in losses.values():
        assert all(type(value) is float and np.isfinite(value) for value in row)
        assert row[0] >= row[1] >= row[2] >= row[3]
        np.testing.assert_allclose(row[3], 0, atol=2e-6)
    total = np.sum(list(losses.values()), axis=0)
    assert total[0] > 2 * total[1] > 4 * total[2] > 0
    assert losses == sensitivity.losses(WEIGHTS, with_exact, GIVEN)


def test_what_it_needs_is_declared(sensitivity, candidates):
    """With these fields alone it works; without one of them, it is named before a weight is changed."""
    only = lambda fields: Evidence(GIVEN.layouts)._replace(**{f: getattr(GIVEN, f) for f in fields})  # noqa: E731
    losses = sensitivity.losses(WEIGHTS, candidates, GIVEN)
    assert sensitivity.losses(WEIGHTS, candidates, only(sensitivity.needs)) == losses
    transform = quantize.mixed(GRIDS, sensitivity, mean_bits=5)
    for field in sensitivity.needs:
        assert field in transform.needs
        with pytest.raises(ValueError, match=f"{field} is needed"):
            transform.init(WEIGHTS, only(sensitivity.needs - {field}))


def test_mixed_stays_within_the_bytes_and_is_what_it_says(sensitivity, candidates):
    budget = 2000
    params, info = plugs.run(quantize.mixed(GRIDS, sensitivity, budget=budget), WEIGHTS, GIVEN)
    assert sx.nbytes(params) <= budget
    by_bits = {grid.bits: i for i, grid in enumerate(GRIDS)}
    for path, entry in info.items():
        assert entry["predicted"] == entry["losses"][by_bits[entry["bits"]]]
        alone = candidates[path][by_bits[entry["bits"]]]
        np.testing.assert_array_equal(plugs.dense(params[path]), plugs.dense(alone))
    assert ("measured_together" in entry) == (sensitivity.together is not None)
    if sensitivity.together is not None:
        dense = {path: plugs.dense(w) for path, w in params.items()}
        np.testing.assert_allclose(entry["measured_together"], sensitivity.together(WEIGHTS, dense, GIVEN), rtol=1e-6)
