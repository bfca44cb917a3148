"""Known answers of the rank rules."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spartax as sx
from spartax import lowrank, measure
from spartax.lowrank.ranks import byte_budget, energy
from spartax.records import Evidence, Layout
from tests import leaves
from tests.oracles import golden


def with_spectrum(values, rows, columns, seed=0):
    """A matrix with these singular values."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(n, len(values))))[0] for n in (rows, columns))
    return jnp.asarray(left * np.asarray(values) @ right.T, jnp.float32)


def test_fixed_is_one_rank_for_all():
    assert lowrank.fixed(3)({"a": jnp.ones((5, 4)), "b": jnp.ones((2, 9, 9))}, Evidence({})) == {"a": 3, "b": 3}


def test_energy_counts_squares():
    """Squares 16, 4, 1, 1 of 22: 73 %, 91 %, 95 %, 100 %. Plain values would say 50, 75, 88, 100."""
    weights = {"w": with_spectrum([4, 2, 1, 1], 9, 8)}
    for kept, rank in ((0.0, 1), (0.7, 1), (0.74, 2), (0.9, 2), (0.92, 3), (0.96, 4)):
        assert lowrank.energy(kept)(weights, Evidence({})) == {"w": rank}


def test_energy_of_a_stack_is_that_of_all_its_layers():
    stack = {"w": jnp.stack([with_spectrum([3, 0, 0], 6, 5), with_spectrum([2, 2, 1], 6, 5, seed=1)])}
    assert lowrank.energy(0.9)(stack, Evidence({})) == {"w": 2}  # squares 13, 4, 1
    assert energy.smallest_rank(np.zeros(4), 0.99) == 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.05, 1.0))
def test_byte_budget_is_never_exceeded_and_no_affordable_direction_is_left(seed, ratio):
    rng = np.random.default_rng(seed)
    shapes = {str(i): tuple(rng.integers(2, 30, 2)) for i in range(4)}
    gains = {p: np.sort(rng.exponential(size=min(s)) ** 3)[::-1] for p, s in shapes.items()}
    price, dense = {p: 4 * sum(s) for p, s in shapes.items()}, {p: 4 * int(np.prod(s)) for p, s in shapes.items()}
    budget = int(ratio * sum(dense.values()) + 1e-6)
    try:
        ranks = byte_budget.spend(gains, price, dense, ratio)
    except ValueError:
        assert sum(min(price[p], dense[p]) for p in shapes) > budget
        return
    left = budget - sum(ranks[p] * price[p] if p in ranks else dense[p] for p in shapes)
    assert left >= 0
    for path, rank in ranks.items():
        assert rank * price[path] < dense[path]
        assert left < min(price[path], dense[path] - rank * price[path])


def test_byte_budget_finds_the_best_split():
    """Against every split, where all directions cost the same (greedy is then exact)."""
    gains = {
        "a": np.array([9.0, 5.0, 4.0, 0.1]),
        "b": np.array([20.0, 1.0, 0.9, 0.8]),
        "c": np.array([6.0, 5.5, 3.0, 2.0]),
    }
    price, dense = dict.fromkeys(gains, 10), dict.fromkeys(gains, 1000)
    for budget in (30, 50, 70, 90):
        ranks = byte_budget.spend(gains, price, dense, budget / 3000)
        splits = [s for s in itertools.product(range(1, 5), repeat=3) if 10 * sum(s) <= budget]
        best = max(splits, key=lambda s: sum(g[:r].sum() for g, r in zip(gains.values(), s)))
        assert tuple(ranks.values()) == best


def test_byte_budget_counts_gain_per_byte():
    """The direction of b gains more but costs ten times as much."""
    gains = {"a": np.array([1.0, 0.5]), "b": np.array([1.0, 2.0])}
    ranks = byte_budget.spend(gains, {"a": 10, "b": 100}, {"a": 1000, "b": 1000}, 125 / 2000)
    assert ranks == {"a": 2, "b": 1}


def test_byte_budget_of_one_weight():
    rows, columns = 4096, 11008
    ranks = byte_budget.spend({"w": np.ones(rows)}, {"w": 4 * (rows + columns)}, {"w": 4 * rows * columns}, 0.5)
    assert ranks == {"w": golden.NUMBERS["ranks"]["svd_ratio0.5_4096x11008"]}
    weights = {"w": with_spectrum([5, 4, 3, 2, 1], 20, 10)}
    assert lowrank.byte_budget(0.5)(weights, Evidence({})) == {"w": int(0.5 * 200 / 30)}


def test_byte_budget_makes_a_weight_dense_when_factors_would_be_as_large():
    """A 4 x 4 weight is dense at 16 numbers; rank 2 has 16 already."""
    gains, price, dense = {"w": np.array([3.0, 2.0, 1.0, 1.0])}, {"w": 32}, {"w": 64}
    assert byte_budget.spend(gains, price, dense, 63 / 64) == {"w": 1}
    assert byte_budget.spend(gains, price, dense, 1.0) == {}


def test_a_budget_that_cannot_be_met_names_the_nearest_that_can_and_the_weight_that_takes_most():
    """Rank 1 of 20 x 10 and 10 x 10 takes 30 + 20 of 300 numbers; the ratio that is named is then met."""
    weights = {"small": jnp.ones((10, 10)), "block/large": jnp.ones((20, 10))}
    for rule in (lowrank.byte_budget, lowrank.shared_energy):
        with pytest.raises(ValueError, match=r"rank 1 for every weight takes 0.1667 .*nearest.*block/large takes most"):
            rule(0.1)(weights, Evidence({}))
        assert rule(0.1667)(weights, Evidence({})) == {"small": 1, "block/large": 1}
    apply = lambda p, x: (x @ p["block"]["large"]) @ p["small"]  # noqa: E731
    params, x = {"small": weights["small"], "block": {"large": weights["block/large"]}}, jnp.ones((2, 20))
    make = lambda ranks: sx.compress(apply, params, lowrank.factorize(lowrank.svd(), ranks), batches=[x])  # noqa: E731
    with pytest.raises(ValueError, match=r"takes 0.1667 of the dense multiply-adds.*block/large takes most"):
        make(lowrank.mac_budget(0.1))
    with pytest.raises(ValueError, match=r"smallest ranks of shares take 0.3334 .*block/large takes most"):
        make(lowrank.sensitivity(0.1, (0.2, 0.3)))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("bad", [0, -1, 2.5, True])
def test_bad_rank(bad):
    with pytest.raises(ValueError, match="rank must be an integer"):
        lowrank.fixed(bad)


@pytest.mark.parametrize("bad", [-0.1, 1.1, "half"])
def test_bad_share(bad):
    with pytest.raises(ValueError, match="kept must be in"):
        lowrank.energy(bad)
    with pytest.raises(ValueError, match="ratio must be in"):
        lowrank.byte_budget(bad)


def test_sensitivity_spends_bytes_where_the_output_needs_them():
    """Equal weights, one of them behind a gain of 0.01: measured on the output, that one is cut and spectra are not."""
    w = with_spectrum([4, 2, 1, 0.5, 0.4, 0.3, 0.2, 0.1], 20, 20)
    params = {"loud": w, "quiet": w}
    apply = lambda p, x: x @ p["loud"] + 0.01 * (x @ p["quiet"])  # noqa: E731
    x = jnp.asarray(np.random.default_rng(0).normal(size=(30, 20)), jnp.float32)
    ranks = lowrank.sensitivity(0.45, shares=(0.05, 0.1, 0.2, 0.4))
    out = sx.compress(apply, params, lowrank.factorize(lowrank.svd(), ranks), batches=[x])
    assert {p: leaf.rank for p, leaf in out.params.items()} == {"loud": 8, "quiet": 1}
    assert sx.nbytes(out.params) <= 0.45 * sx.nbytes(params)
    even = sx.compress(apply, params, lowrank.factorize(lowrank.svd(), lowrank.byte_budget(0.45)), batches=[x])
    error = lambda made: float(np.mean((made.apply(made.params, x) - apply(params, x)) ** 2))  # noqa: E731
    assert error(out) < 0.1 * error(even)


def test_sensitivity_spends_what_its_grid_leaves():
    """Shares 0.1 and 0.4 of 20: ranks 2 and 8, and dense at 20 / 2. The rest of 0.7 buys directions one by one."""
    w = with_spectrum(np.geomspace(4, 0.1, 16), 20, 20)
    params, apply = {"loud": w, "quiet": w}, lambda p, x: x @ p["loud"] + 0.1 * (x @ p["quiet"])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(30, 20)), jnp.float32)
    for ratio, expected in ((0.5, {"loud": 8, "quiet": 2}), (0.55, {"loud": 9, "quiet": 2}), (0.75, {"quiet": 5})):
        out = sx.compress(
            apply, params, lowrank.factorize(lowrank.svd(), lowrank.sensitivity(ratio, (0.1, 0.4))), batches=[x]
        )
        assert {p: leaf.rank for p, leaf in out.params.items() if isinstance(leaf, sx.LowRank)} == expected
        left = ratio * sx.nbytes(params) - sx.nbytes(out.params)
        assert 0 <= left < 4 * 40  # less than one direction


def test_sensitivity_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="shares must be in"):
        lowrank.sensitivity(0.5, shares=(1.0,))
    with pytest.raises(ValueError, match="objective is needed"):
        lowrank.sensitivity()({"w": jnp.ones((4, 4))}, Evidence({}))


def test_shared_energy_keeps_one_share_of_every_weight():
    """Shares held by 1, 2, 3 directions: 70, 91 and 96 % of the steep one, 25, 50 and 75 % of the flat one."""
    weights = {"steep": with_spectrum([4, 2.2, 1, 1], 20, 20), "flat": with_spectrum([2, 2, 2, 2], 20, 20, seed=1)}
    ranks = {count: lowrank.shared_energy(count * 40 / 800)(weights, Evidence({})) for count in (4, 5, 7)}
    assert ranks == {4: {"steep": 1, "flat": 3}, 5: {"steep": 2, "flat": 3}, 7: {"steep": 3, "flat": 4}}
    assert lowrank.byte_budget(4 * 40 / 800)(weights, Evidence({})) == {"steep": 2, "flat": 2}


@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_shared_energy_counts_the_bytes_of_tucker_and_of_the_svd_beside_it(ratio):
    rng = np.random.default_rng(0)
    params = {"conv": rng.normal(size=(3, 3, 16, 24)), "head": rng.normal(size=(24, 30))}
    params = {path: jnp.asarray(w, jnp.float32) for path, w in params.items()}

    def apply(p, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return (
            jnp.mean(jax.lax.conv_general_dilated(x, p["conv"], (1, 1), "SAME", dimension_numbers=numbers), (1, 2))
            @ p["head"]
        )

    both = lowrank.otherwise(lowrank.tucker(), lowrank.svd())
    method = lowrank.factorize(both, lowrank.shared_energy(ratio))
    out = sx.compress(apply, params, method, batches=[jax.ShapeDtypeStruct((1, 4, 4, 16), jnp.float32)])
    assert not both.nested
    assert lowrank.otherwise(lowrank.svd(), lowrank.whitened()).nested
    assert isinstance(out.params["conv"], sx.Tucker)
    assert isinstance(out.params["head"], sx.LowRank)
    assert 0.9 * ratio < sx.nbytes(out.params) / sx.nbytes(params) <= ratio


CONV = {"conv": leaves.normal(3, 3, 8, 16), "head": leaves.normal(16, 12, seed=1)}
SPLITS = {
    "svd": lowrank.svd(),
    "spatial": lowrank.otherwise(lowrank.spatial(), lowrank.svd()),
    "block_diagonal": lowrank.block_diagonal(4, iterations=1),
    "cp": lowrank.otherwise(lowrank.cp(iterations=1), lowrank.svd()),
}


def convolution(params, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, params["conv"], (1, 1), "SAME", dimension_numbers=numbers)
    return jnp.mean(jax.nn.relu(x), (1, 2)) @ params["head"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("split", SPLITS)
def test_budgets_hold_whatever_the_factors(split, dtype):
    """They are those of the leaves: blocks beside a low rank, thin kernels that share no matrix, half the bytes."""
    params = jax.tree.map(lambda w: w.astype(dtype), CONV)
    x = leaves.normal(4, 5, 5, 8, seed=2).astype(dtype)
    macs = lambda params: measure.macs(convolution, params, jax.ShapeDtypeStruct(x.shape, x.dtype)).run  # noqa: E731
    rules = {"bytes": (lowrank.byte_budget, lowrank.shared_energy, lowrank.sensitivity), "macs": (lowrank.mac_budget,)}
    for what, cost in {"bytes": sx.nbytes, "macs": macs}.items():
        for rule in rules[what]:
            made = sx.compress(convolution, params, lowrank.factorize(SPLITS[split], rule(0.6)), batches=[x]).params
            assert 0.4 * cost(params) < cost(made) <= 0.6 * cost(params), rule.__name__


def test_sensitivity_measures_kernels_whose_matrix_has_another_order_of_axes():
    """A kernel of spatial rank 2, 72 numbers a direction, and a head of rank 4, 28 each: both fit without a loss."""
    vertical, horizontal = leaves.normal(3, 8, 2, seed=3), leaves.normal(3, 16, 2, seed=4)
    head = leaves.normal(16, 4, seed=5) @ leaves.normal(4, 12, seed=6)
    params = {"conv": jnp.einsum("hip,wop->hwio", vertical, horizontal), "head": head}
    ranks = lowrank.sensitivity((2 * 72 + 4 * 28.1) / 1344, shares=(0.042, 0.084, 0.34, 0.5))
    method = lowrank.factorize(SPLITS["spatial"], ranks)
    made = sx.compress(convolution, params, method, batches=[leaves.normal(4, 5, 5, 8, seed=2)]).params
    assert made["conv"].vertical.shape[-1] == 2
    assert made["head"].rank == 4
    for path, weight in params.items():
        np.testing.assert_allclose(sx.dense(made[path]), weight, atol=1e-4)


@pytest.mark.parametrize(
    ("ranks", "said"), [({"other": 2}, "the name of a matrix must be one of"), ({"w": 2.5}, "w: rank must be from 1")]
)
def test_a_rule_that_names_no_matrix_or_no_whole_number(ranks, said):
    method = lowrank.factorize(lowrank.svd(), lambda matrices, evidence: ranks)
    with pytest.raises(ValueError, match=said):
        sx.compress(lambda p, x: x @ p["w"], {"w": jnp.ones((8, 8))}, method, batches=[jnp.ones((1, 8))])


def test_paths_may_hold_any_sign():
    """Names of matrices are told from those of parts by the evidence, not by what a path looks like."""
    weights = {f"w#{i}": jnp.asarray(np.random.default_rng(i).normal(size=(20, 16)), jnp.float32) for i in range(3)}
    layouts = dict.fromkeys(weights, Layout((0,), (1,)))
    plain = {path.replace("#", ""): w for path, w in weights.items()}
    for rule in (lowrank.byte_budget, lowrank.shared_energy):
        ours, expected = (
            lowrank.factorize(lowrank.svd(), rule(0.4)).init(w, Evidence(dict.fromkeys(w, Layout((0,), (1,)))))[0]
            for w in (weights, plain)
        )
        assert [leaf.rank for leaf in ours.values()] == [leaf.rank for leaf in expected.values()]
    assert set(layouts) == set(ours)


def test_a_kernel_with_a_single_direction_is_bought_whole():
    """One output: at rank 1 there is nothing left to buy of it, and the other weight takes the rest."""
    weights = {
        "one": jnp.ones((3, 3, 16, 1)),
        "other": jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 16, 8))),
    }
    layouts = dict.fromkeys(weights, Layout((0, 1, 2), (3,)))
    params = lowrank.factorize(lowrank.cp(), lowrank.byte_budget(0.6)).init(weights, Evidence(layouts))[0]
    assert sx.nbytes(params) <= 0.6 * sx.nbytes(weights)
    assert not isinstance(params["other"], jax.Array)


@pytest.mark.parametrize("size", [1e-25, 1e18])
def test_ranks_and_errors_of_any_scale(size):
    """Squares of such numbers are beyond float32; the ranks and the relative error are those of the weight itself."""
    w = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(24, 16)), jnp.float32)}
    method = lowrank.factorize(lowrank.svd(), lowrank.energy(0.7))
    apply = lambda p, x: x @ p["w"]  # noqa: E731
    told = [
        sx.compress(apply, p, method, batches=[jnp.ones((1, 24))]).info["w"]["steps"][0]
        for p in (w, {"w": size * w["w"]})
    ]
    assert told[0]["rank"] == told[1]["rank"] > 2
    np.testing.assert_allclose(told[1]["relative_error"], told[0]["relative_error"], rtol=1e-3)


def test_factors_under_a_mask_must_be_smaller_than_what_the_mask_keeps():
    """90 % removed: half of the directions would take more bytes than the entries that are left."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(64, 64)), jnp.float32)
    mask = jnp.abs(w) > jnp.quantile(jnp.abs(w), 0.9)
    layouts = {"w": Layout((0,), (1,))}
    for rank, factored in ((4, False), (1, True)):
        method, given = lowrank.factorize(lowrank.svd(), lowrank.fixed(rank)), Evidence(layouts)
        params, state = method.init({"w": sx.Masked(w, mask)}, given)
        assert isinstance(params["w"].weight, sx.LowRank) == factored
        assert ("skipped" in method.update(params, state, given)[2]["w"]) != factored
        assert sx.nbytes(sx.pack(params)) <= sx.nbytes(sx.pack(sx.Masked(w, mask)))
