"""What every criterion obeys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import catalog, prune
from spartax.records import Criterion, Evidence
from tests import plugs

WEIGHTS = {p: w for p, w in plugs.draw().items() if p in ("dense", "conv")}
GIVEN = plugs.evidence(WEIGHTS)


@pytest.fixture(params=catalog.names(prune.criteria))
def criterion(request):
    return catalog.load(prune.criteria, request.param)()


def only(needs):
    """Evidence with the layouts and these fields alone."""
    return Evidence(GIVEN.layouts)._replace(**{field: getattr(GIVEN, field) for field in needs})


def test_scores_look_like_the_weights(criterion):
    assert isinstance(criterion, Criterion)
    scores = criterion.score(WEIGHTS, only(criterion.needs))
    assert list(scores) == list(WEIGHTS)
    for path, score in scores.items():
        assert score.shape == WEIGHTS[path].shape
        assert jnp.issubdtype(score.dtype, jnp.floating)
        assert score.dtype.itemsize >= 4
        assert np.isfinite(np.asarray(score)).all()


def test_a_missing_need_is_named(criterion):
    assert criterion.needs <= set(Evidence._fields)
    for field in criterion.needs - {"layouts"}:
        params, state = prune.prune(criterion).init(WEIGHTS, GIVEN)
        with pytest.raises(ValueError, match=f"{field} is needed"):
            prune.prune(criterion).update(params, state, only(criterion.needs - {field}))


def test_jit_is_the_same_and_traces_once(criterion):
    traces = []

    @jax.jit
    def score(weights, key, grads):
        traces.append(1)
        return criterion.score(weights, GIVEN._replace(key=key, grads=grads))

    for _ in range(2):
        jitted = score(WEIGHTS, GIVEN.key, GIVEN.grads)
    plain = criterion.score(WEIGHTS, GIVEN)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), jitted, plain)
    assert len(traces) == 1


def test_the_same_evidence_gives_the_same_scores(criterion):
    jax.tree.map(np.testing.assert_array_equal, criterion.score(WEIGHTS, GIVEN), criterion.score(WEIGHTS, GIVEN))


def test_outputs_have_no_names(criterion):
    """Scores move with their output unit when units are renumbered (a criterion that draws is excepted)."""
    if "key" in criterion.needs:
        return
    order = np.random.default_rng(0).permutation(20)
    shuffled = {p: jnp.asarray(np.take(np.asarray(w), order, GIVEN.layouts[p].outputs[0])) for p, w in WEIGHTS.items()}
    plain = criterion.score(WEIGHTS, GIVEN)
    for path, score in criterion.score(shuffled, plugs.evidence(shuffled)).items():
        moved = np.take(np.asarray(plain[path]), order, GIVEN.layouts[path].outputs[0])
        np.testing.assert_allclose(score, moved, rtol=1e-5, atol=1e-6)


def test_half_precision_weights_are_scored_in_full(criterion):
    half = {p: jnp.asarray(np.asarray(w, jnp.bfloat16)) for p, w in WEIGHTS.items()}
    assert all(s.dtype == jnp.float32 for s in criterion.score(half, plugs.evidence(half)).values())
