"""What every criterion obeys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import catalog, prune
from spartax.records import Criterion, Evidence
from tests import plugs

WEIGHTS = {p: w for p, w in plugs.draw().items() if p in ("dense", "conv")}


def given(weights):
    """Evidence with the examples in two batches."""
    found = plugs.evidence(weights)
    ((x, y),) = found.objective.batches
    return found._replace(objective=found.objective._replace(batches=((x[:32], y[:32]), (x[32:], y[32:]))))


GIVEN = given(WEIGHTS)


@pytest.fixture(params=catalog.names(prune.criteria), scope="module")
def criterion(request):
    """One of each for all tests: what it compiles stays with it."""
    options = {"mad": {"attack": plugs.shift, "steps": 3}}
    return catalog.load(prune.criteria, request.param)(**options.get(request.param, {}))


def only(needs):
    """Evidence with the layouts and these fields alone."""
    return Evidence(GIVEN.layouts)._replace(**{field: getattr(GIVEN, field) for field in needs})


def test_scores_look_like_the_weights(criterion):
    assert isinstance(criterion, Criterion)
    scores = criterion.score(WEIGHTS, only(criterion.needs))
    assert set(scores) == set(WEIGHTS)
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

    def move(values, order):
        return {p: jnp.take(v, order, GIVEN.layouts[p].outputs[0]) for p, v in values.items()}

    renumbered = GIVEN._replace(
        originals=move(GIVEN.originals, order),
        grads=move(GIVEN.grads, order),
        signals={p: s[order][:, order] for p, s in GIVEN.signals.items()},
        objective=GIVEN.objective._replace(logits=lambda w, x: plugs.network(move(w, np.argsort(order)), x)),
    )
    found, plain = criterion.score(move(WEIGHTS, order), renumbered), criterion.score(WEIGHTS, GIVEN)
    for path, score in move(plain, order).items():
        np.testing.assert_allclose(found[path], score, rtol=2e-3, atol=1e-5 * np.abs(score).max())


def test_the_order_of_batches_and_of_their_examples_does_not_matter(criterion):
    order = np.random.default_rng(0).permutation(32)
    batches = tuple((x[order], y[order]) for x, y in reversed(GIVEN.objective.batches))
    other = GIVEN._replace(objective=GIVEN.objective._replace(batches=batches))
    found = criterion.score(WEIGHTS, other)
    for path, score in criterion.score(WEIGHTS, GIVEN).items():
        np.testing.assert_allclose(found[path], score, rtol=2e-3, atol=1e-5 * np.abs(score).max())


def test_an_entry_that_is_zero_matters_little(criterion):
    """Higher = keep: its score is below the usual one (a criterion that draws is excepted)."""
    if "key" in criterion.needs:
        return
    absent = {p: np.random.default_rng(1).random(w.shape) < 0.1 for p, w in WEIGHTS.items()}
    weights = {p: jnp.where(absent[p], 0, w) for p, w in WEIGHTS.items()}
    for path, score in criterion.score(weights, GIVEN).items():
        score = np.abs(score)
        assert score[absent[path]].max() <= np.median(score[~absent[path]])


def test_pruning_is_exact_and_leaves_the_weights_that_came_as_they_were(criterion):
    before = {p: np.array(w) for p, w in WEIGHTS.items()}
    params, info = plugs.run(prune.prune(criterion, 0.75), WEIGHTS, GIVEN)
    assert sum(entry["kept"] for entry in info.values()) == round(0.25 * sum(w.size for w in before.values()))
    for path, leaf in params.items():
        mask = np.asarray(leaf.mask)
        assert mask.sum() == info[path]["kept"]
        assert leaf.weight.dtype == WEIGHTS[path].dtype
        assert not np.asarray(plugs.dense(leaf))[~mask].any()
        if criterion.solve is None:
            assert leaf.weight is WEIGHTS[path]
        else:
            assert np.abs(np.asarray(leaf.weight) - before[path])[mask].max() > 0
        np.testing.assert_array_equal(WEIGHTS[path], before[path])


def broken(logits, y):
    return jnp.nan * plugs.cross_entropy(logits, y)


@pytest.mark.parametrize("name", ["fisher", "grasp", "mad", "snip", "taylor", "woodfisher"])
def test_a_loss_that_is_not_finite_is_named_before_the_other_batches_are_read(name):
    made = prune.mad(plugs.shift) if name == "mad" else catalog.load(prune.criteria, name)()
    (x, y), _ = GIVEN.objective.batches
    objective = GIVEN.objective._replace(loss=broken, batches=((x, y), (x, "never read")))
    with pytest.raises(ValueError, match=f"^{name}: the loss of the first batch is nan"):
        made.score(WEIGHTS, GIVEN._replace(objective=objective))


def test_half_precision_weights_are_scored_in_full(criterion):
    half = {p: jnp.asarray(np.asarray(w, jnp.bfloat16)) for p, w in WEIGHTS.items()}
    assert all(s.dtype == jnp.float32 for s in criterion.score(half, given(half)).values())
