"""Known answers of uniform, pooled and ERK allocations."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spartax import prune
from spartax.prune.allocations import erk, pooled
from spartax.records import Evidence, Layout
from tests.oracles import golden
from tests.oracles import prune as oracle


def test_uniform_keeps_the_same_fraction_everywhere():
    scores = {"large": jnp.full((10, 10), 9.0), "small": jnp.ones((3, 3))}
    assert prune.uniform()(scores, 0.9, Evidence({})) == {"large": 10, "small": 1}
    assert prune.uniform()(scores, 0.3, Evidence({})) == {"large": 70, "small": 6}


def test_pooled_ranks_all_weights_together():
    """Two layers of different scale: a uniform allocation would keep four of each."""
    scores = {"large": jnp.arange(8.0) + 3.5, "small": jnp.arange(8.0)}
    assert prune.pooled(0)(scores, 0.5, Evidence({})) == {"large": 6, "small": 2}


def test_pooled_gives_ties_to_the_first_layers():
    scores = {"b": jnp.ones((4,)), "a": jnp.ones((4,)), "c": jnp.ones((4,))}
    assert prune.pooled(0)(scores, 0.5, Evidence({})) == {"b": 4, "a": 2, "c": 0}


def test_water_filling_golden():
    counts, floors = np.array([2, 50, 948]), np.array([30, 30, 30])
    lifted = pooled.lift(counts, floors)
    np.testing.assert_allclose(lifted, golden.NUMBERS["min_keep_guard"], atol=1e-4)
    assert pooled.settle(lifted, np.array([100, 1000, 9000]), 1000).tolist() == [30, 48, 922]


def test_pooled_lifts_a_layer_to_its_floor_at_the_cost_of_the_others():
    scores = {"weak": jnp.linspace(0, 0.1, 100), "strong": jnp.linspace(1, 2, 900)}
    assert prune.pooled(0)(scores, 0.9, Evidence({})) == {"weak": 0, "strong": 100}
    assert prune.pooled(0.2)(scores, 0.7, Evidence({})) == {"weak": 20, "strong": 280}
    assert prune.pooled(30)(scores, 0.9, Evidence({})) == {"weak": 30, "strong": 70}


def test_a_layer_not_larger_than_its_floor_stays_dense():
    scores = {"tiny": jnp.zeros(5), "strong": jnp.linspace(1, 2, 95)}
    assert prune.pooled(8)(scores, 0.8, Evidence({})) == {"tiny": 5, "strong": 15}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_water_filling_keeps_the_total_and_every_floor(data):
    layers = data.draw(st.integers(1, 6))
    sizes = np.array(data.draw(st.lists(st.integers(1, 50), min_size=layers, max_size=layers)))
    counts = np.array([data.draw(st.integers(0, int(n))) for n in sizes])
    floors = np.minimum(sizes, data.draw(st.integers(0, 10)))
    if floors.sum() > counts.sum():
        return
    lifted = pooled.lift(counts, floors)
    assert np.isclose(lifted.sum(), counts.sum())
    whole = pooled.settle(lifted, sizes, int(counts.sum()))
    assert whole.sum() == counts.sum()
    assert (whole >= floors).all()
    assert (whole <= sizes).all()
    if (counts >= floors).all():
        assert whole.tolist() == counts.tolist()


def test_floors_above_the_total_are_an_error():
    with pytest.raises(ValueError, match=r"min_kept=0.5 asks for 50 weights, but this sparsity keeps 10"):
        prune.pooled(0.5)({"w": jnp.arange(100.0)}, 0.9, Evidence({}))


@pytest.mark.parametrize("bad", [-1, 1.0, -0.1, 1.5, "a", None])
def test_bad_floor(bad):
    with pytest.raises(ValueError, match="min_kept must"):
        prune.pooled(bad)


def test_erk_golden():
    shapes = {"a": (3, 3, 3, 16), "b": (3, 3, 16, 32), "c": (3, 3, 32, 64), "d": (64, 10)}
    raw = {p: sum(s) / np.prod(s) for p, s in shapes.items()}
    sizes = {p: int(np.prod(s)) for p, s in shapes.items()}
    found = erk.densities(raw, sizes, 0.1)
    np.testing.assert_allclose(list(found.values()), golden.NUMBERS["erk_density_0.1"], atol=1e-6)
    given_layouts = Evidence({p: Layout(tuple(range(len(s) - 1)), (len(s) - 1,)) for p, s in shapes.items()})
    counts = prune.erk()({p: jnp.zeros(s) for p, s in shapes.items()}, 0.9, given_layouts)
    assert counts == {"a": 245, "b": 528, "c": 998, "d": 640}


@pytest.mark.parametrize("density", [0.01, 0.05, 0.3, 0.7, 1.0])
def test_erk_solves_for_the_total(density):
    shapes = {"a": (3, 3, 3, 16), "b": (3, 3, 64, 64), "c": (5, 4), "d": (4, 5), "e": (300, 100)}
    sizes = {p: int(np.prod(s)) for p, s in shapes.items()}
    found = erk.densities({p: sum(s) / np.prod(s) for p, s in shapes.items()}, sizes, density)
    np.testing.assert_allclose(list(found.values()), oracle.erk(list(shapes.values()), density), rtol=1e-6)
    assert np.isclose(sum(found[p] * sizes[p] for p in sizes), density * sum(sizes.values()))


def test_erk_power_zero_is_uniform_and_a_stack_counts_as_one_layer():
    layouts = {"a": Layout((0,), (1,)), "s": Layout((1,), (2,), (0,))}
    scores = {"a": jnp.zeros((40, 50)), "s": jnp.zeros((6, 40, 50))}
    assert prune.erk(0.0)(scores, 0.9, Evidence(layouts)) == {"a": 200, "s": 1200}
    assert prune.erk()(scores, 0.9, Evidence(layouts)) == {"a": 200, "s": 1200}
