import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from spartax.kernels import threshold
from tests.oracles import prune as oracle

pytestmark = pytest.mark.core
SHAPES = ((5, 7), (3, 2, 4), (11,))
top = jax.jit(threshold.top)


def draw(seed, rounded):
    rng = np.random.default_rng(seed)
    scores = [rng.normal(size=s) for s in SHAPES]
    spread = lambda s: np.round(s) if rounded else s * 10.0 ** rng.integers(-30, 30)  # noqa: E731
    return [spread(s).astype(np.float32) for s in scores]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.booleans(), st.integers(0, 70))
def test_kth_largest_is_that_of_a_sort(seed, rounded, k):
    scores = draw(seed, rounded)
    found = threshold.kth_largest([jnp.asarray(s) for s in scores], k)
    together = np.sort(np.concatenate([s.ravel() for s in scores]))[::-1]
    assert float(found.value) == together[max(k, 1) - 1]
    assert found.kept.tolist() == oracle.pooled_counts(scores, k)
    ties = [int(np.sum(s == found.value)) for s in scores]
    above = [int(np.sum(s > found.value)) for s in scores]
    assert found.surplus.tolist() == [t + a - kept for t, a, kept in zip(ties, above, found.kept.tolist())]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.booleans(), st.integers(0, 24))
def test_top_is_exact_with_ties_to_the_lowest_flat_index(seed, rounded, k):
    score = draw(seed, rounded)[1]
    mask = np.asarray(threshold.top(jnp.asarray(score), k))
    np.testing.assert_array_equal(mask, oracle.top(score, k))
    np.testing.assert_array_equal(mask, top(score, k))
    assert mask.sum() == k


def test_all_equal_negative_zero_and_extremes():
    for score in (
        np.zeros((4, 6)),
        np.array([[-0.0, 0.0, -0.0, 0.0]]),
        np.array([3.4e38, -3.4e38, 1.2e-38, -1.2e-38, 0.0, np.inf, -np.inf, 1.0]),
    ):
        for k in range(score.size + 1):
            want = oracle.top(score.astype(np.float32), k)
            np.testing.assert_array_equal(threshold.top(jnp.asarray(score, jnp.float32), k), want)


def test_subnormal_numbers_are_zero():
    score = jnp.asarray([1e-45, 0.0, -1e-45, 0.0, 1.0], jnp.float32)
    np.testing.assert_array_equal(threshold.top(score, 3), [True, True, False, False, True])


def test_half_precision_is_compared_as_float32():
    score = jnp.asarray(np.random.default_rng(0).normal(size=(8, 9)), jnp.bfloat16)
    np.testing.assert_array_equal(threshold.top(score, 20), oracle.top(np.asarray(score, np.float32), 20))


def test_double_precision_sees_differences_below_float32():
    with jax.enable_x64(True):
        score = np.array([1.0, 1.0 + 1e-12, 1.0 - 1e-12, 1.0 + 2e-12])
        np.testing.assert_array_equal(threshold.top(jnp.asarray(score), 2), [False, True, False, True])


def test_large_arrays_are_counted_another_way():
    rng = np.random.default_rng(6)
    for score in (rng.normal(size=(30, 20, 20)), np.round(rng.normal(size=(30, 20, 20)), 1)):
        want = np.zeros(score.size, bool)
        want[np.argsort(-score.astype(np.float32).ravel(), kind="stable")[:1234]] = True
        mask = threshold.top(jnp.asarray(score, jnp.float32), 1234)
        np.testing.assert_array_equal(np.ravel(mask), want)


def test_constants_inside_jit():
    score = jnp.asarray(draw(7, True)[1])
    np.testing.assert_array_equal(jax.jit(lambda: threshold.top(score, 9))(), oracle.top(np.asarray(score), 9))


def test_the_count_may_be_traced_and_does_not_recompile():
    calls = []

    @jax.jit
    def masks(score, k):
        calls.append(1)
        return threshold.top(score, k)

    score = jnp.asarray(draw(3, True)[0])
    for k in (0, 1, 17, 35):
        np.testing.assert_array_equal(masks(score, k), oracle.top(np.asarray(score), k))
    assert len(calls) == 1


def test_sharded_scores_give_the_same_and_are_never_gathered():
    mesh = jax.make_mesh((8,), ("data",))
    score = np.round(np.random.default_rng(4).normal(size=(1024, 16)), 1).astype(np.float32)
    placed = jax.device_put(score, NamedSharding(mesh, PartitionSpec("data")))
    mask = threshold.top(placed, 5000)
    np.testing.assert_array_equal(mask, threshold.top(jnp.asarray(score), 5000))
    assert len(mask.sharding.device_set) == 8
    assert float(threshold.kth_largest([placed], 5000).value) == np.sort(score.ravel())[-5000]
    memory = jax.jit(threshold.kth_largest).lower([placed], 5000).compile().memory_analysis()
    assert memory.temp_size_in_bytes < score.nbytes / 8


def test_shards_of_a_shard_map_add_their_counts():
    mesh = jax.make_mesh((8,), ("data",))
    score = np.random.default_rng(5).normal(size=(64, 5)).astype(np.float32)
    spec = PartitionSpec("data")

    def value(block):
        return threshold.kth_largest([block], 100, axis_name="data").value[None]

    values = jax.jit(jax.shard_map(value, mesh=mesh, out_specs=spec))(jax.device_put(score, NamedSharding(mesh, spec)))
    np.testing.assert_array_equal(values, np.full(8, np.sort(score.ravel())[-100]))


def test_no_second_copy_of_the_scores():
    score = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    for fn, args in ((threshold.kth_largest, ([score], 5)), (threshold.top, (score, 5))):
        memory = jax.jit(fn).lower(*args).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 10_000


def test_no_scores_are_refused():
    with pytest.raises(ValueError, match="scores must hold"):
        threshold.kth_largest([], 0)
