"""What every allocation obeys."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import catalog, prune
from spartax.records import Evidence
from tests import plugs

SCORES = {p: jnp.asarray(np.abs(w)) for p, w in plugs.draw().items()}
GIVEN = plugs.evidence()
TOTAL = sum(s.size for s in SCORES.values())


TIMES = {path: {k / 10: k + 1.0 for k in range(11)} for path in SCORES}
OPTIONS = {
    "given": {"sparsities": {"dense": 0.0}},
    "by_latency": {"table": TIMES},
    "rate_distortion": {"sparsities": (0.3, 0.6, 0.9, 0.99)},
}
# Those that spend something else than entries: sparsity is the removed part of it (sap: the most that is removed).
OTHER_BUDGET = {"given", "sap", "by_macs", "by_latency"}
# The best choice for less may take from one layer what it gives to another.
TRADES = {"rate_distortion", "by_latency"}


@pytest.fixture(params=catalog.names(prune.allocations))
def name(request):
    return request.param


@pytest.fixture
def allocation(name):
    return catalog.load(prune.allocations, name)(**OPTIONS.get(name, {}))


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9])
def test_counts(name, allocation, sparsity):
    counts = allocation(SCORES, sparsity, GIVEN)
    assert list(counts) == list(SCORES)
    assert all(type(k) is int and 0 <= k <= SCORES[p].size for p, k in counts.items())
    if name not in OTHER_BUDGET:
        assert abs(sum(counts.values()) - round((1 - sparsity) * TOTAL)) <= len(counts)
    assert counts == allocation(SCORES, sparsity, GIVEN)
    if sparsity == 0.0:
        assert counts == {p: s.size for p, s in SCORES.items()}


def test_more_sparsity_never_keeps_more(name, allocation):
    counts = [allocation(SCORES, s, GIVEN) for s in (0.2, 0.5, 0.8)]
    for more, less in itertools.pairwise(counts):
        assert sum(less.values()) <= sum(more.values())
        assert name in TRADES or all(less[p] <= more[p] for p in SCORES)


def test_one_weight_gets_everything(name, allocation):
    one = {"outputs_first": SCORES["outputs_first"]}
    if name not in OTHER_BUDGET - {"by_macs"}:
        assert allocation(one, 0.75, plugs.evidence(one)) == {"outputs_first": 120}


def test_what_it_foresees_is_what_it_does(allocation):
    """From shapes alone: the counts, or nothing where the scores decide."""
    shapes = {path: jax.ShapeDtypeStruct(score.shape, jnp.float32) for path, score in SCORES.items()}
    foresee = getattr(allocation, "foresee", lambda *_: None)
    assert foresee(shapes, 0.5, GIVEN) in (None, allocation(SCORES, 0.5, GIVEN))


def test_those_that_spend_something_else_than_entries_say_so(name, allocation):
    """The ratios of `given` are known before: what they leave is counted instead of the sparsity."""
    assert getattr(allocation, "fixes_total", True) == (name not in OTHER_BUDGET - {"given"})


def test_what_it_needs_is_declared(allocation):
    """With these fields alone it works; without one of them, it is named before a weight is changed."""
    needs = getattr(allocation, "needs", frozenset())
    only = lambda fields: Evidence(GIVEN.layouts)._replace(**{f: getattr(GIVEN, f) for f in fields})  # noqa: E731
    assert allocation(SCORES, 0.5, only(needs)) == allocation(SCORES, 0.5, GIVEN)
    for field in needs:
        transform = prune.prune(prune.magnitude(), 0.5, allocation)
        assert field in transform.needs
        params, state = transform.init(plugs.draw(), GIVEN)
        with pytest.raises(ValueError, match=f"{field} is needed"):
            transform.update(params, state, only(needs - {field}))


# Floors that the layer with few entries left cannot reach.
FLOORS = {"pooled": {"min_kept": 0.3}, "by_macs": {"min_kept": 0.3}}


def test_what_is_gone_for_good_is_neither_counted_nor_kept(name):
    """`dense` has lost nine of ten entries: the others make up for what it cannot keep, and rounds go on removing."""
    old = {p: np.ones(s.shape, bool) for p, s in SCORES.items()}
    old["dense"][:, 2:] = False
    allocation = catalog.load(prune.allocations, name)(**{**OPTIONS, **FLOORS}.get(name, {}))
    transform = prune.prune(prune.magnitude(), 0.4, allocation, regrow=False, allow_empty=True)
    params, state = transform.init(plugs.draw(), GIVEN)
    params = {p: sx.Masked(params[p].weight, jnp.asarray(mask)) for p, mask in old.items()}
    asked = round(0.6 * TOTAL) if name != "given" else 480 + round(0.6 * (TOTAL - 480))
    for _ in range(2):
        zeros = {p: jnp.where(old[p], s, 0) for p, s in SCORES.items()}
        params, state, _ = transform.update(params, state, GIVEN)
        new = {p: np.asarray(w.mask) for p, w in params.items()}
        assert not any((new[p] & ~old[p]).any() for p in new)
        kept = {p: int(mask.sum()) for p, mask in new.items()}
        if name == "sap":
            assert kept == allocation(zeros, 0.4, GIVEN)
            assert all(0 < kept[p] < old[p].sum() for p in kept)
        elif name == "by_latency":
            assert (
                sum(min(t for k, t in TIMES[p].items() if k * SCORES[p].size >= n - 1) for p, n in kept.items()) <= 26.4
            )
        elif name != "by_macs":
            assert abs(sum(kept.values()) - asked) <= len(kept)
        old = new
