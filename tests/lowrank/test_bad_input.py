"""What cannot be factorized is refused by the path of its weight, before anything is factorized."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import lowrank, quantize
from spartax.records import Evidence, Layout

rng = np.random.default_rng(0)
PARAMS = {"first": {"kernel": rng.normal(size=(12, 16))}, "block": {"kernel": rng.normal(size=(16, 10))}}
PARAMS = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), PARAMS)
X = jnp.asarray(rng.normal(size=(40, 12)), jnp.float32)
DATA_AWARE = {"whitened": lowrank.whitened, "atomic_features": lowrank.atomic_features}


def network(params, x):
    return (x @ params["first"]["kernel"]) @ params["block"]["kernel"]


def refused(message, factorization, ranks, batches):
    before = jax.tree.leaves(PARAMS)
    with pytest.raises(ValueError, match=message):
        sx.compress(network, PARAMS, lowrank.factorize(factorization, ranks), batches=batches)
    assert all(a is b for a, b in zip(jax.tree.leaves(PARAMS), before))  # nothing is half done


@pytest.mark.parametrize("rank", [0, 11, -1])
def test_ranks_outside_the_matrix(rank):
    ranks = lambda matrices, evidence: {"first/kernel": 2, "block/kernel": rank}  # noqa: E731
    refused(f"block/kernel: rank must be from 1 to 10 for a 16 x 10 matrix; got {rank}", lowrank.svd(), ranks, [X])


@pytest.mark.parametrize("factorization", DATA_AWARE)
def test_no_calibration_data(factorization):
    made = DATA_AWARE[factorization]()
    refused("batches is empty", made, lowrank.fixed(2), [])
    refused("kernel: no row was seen, because the batches hold no example", made, lowrank.fixed(2), [X[:0]])


@pytest.mark.parametrize("factorization", [*DATA_AWARE, "activation_weighted"])
def test_inputs_that_are_zero_everywhere(factorization):
    made = DATA_AWARE.get(factorization, lowrank.activation_weighted)()
    refused(
        "(first|block)/kernel: the (moments|magnitudes) of its inputs is zero everywhere",
        made,
        lowrank.fixed(2),
        [0 * X],
    )


def test_calibration_data_that_span_fewer_directions_than_the_rank():
    """Three examples tell three directions apart, and differ in two; the layer behind them sees no more."""
    refused(
        "first/kernel: rank 5 is above the 3 directions that its calibration inputs span",
        lowrank.whitened(),
        lambda matrices, evidence: {"first/kernel": 5, "block/kernel": 2},
        [X[:3]],
    )
    the_svd = lowrank.otherwise(lowrank.svd(), lowrank.whitened())  # which splits neither of the two
    for factorization in (lowrank.whitened(damping=0.01), the_svd):
        method = lowrank.factorize(factorization, lowrank.fixed(5))
        out = sx.compress(network, PARAMS, method, batches=[X[:3]])
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(out.params))
    refused(
        "kernel: rank 5 is above the 3 directions",
        lowrank.otherwise(lowrank.tucker(), lowrank.whitened()),
        lowrank.fixed(5),
        [X[:3]],
    )
    codes = quantize.quantize(quantize.integer(3))
    correct = lowrank.compensate(lowrank.whitened(), lowrank.fixed(5))
    with pytest.raises(ValueError, match="kernel: rank 5 is above the 3 directions"):
        sx.compress(network, PARAMS, codes, correct, batches=[X[:3]])


@pytest.mark.parametrize(
    ("batches", "rank", "known"),
    [([X[:3]], 3, 2), ([X[:1]] * 5, 1, 0), ([100 + X[:4]], 4, 3), ([X @ jnp.diag(jnp.arange(12) < 5.0)], 6, 5)],
)
def test_outputs_that_vary_in_fewer_directions_than_the_rank(batches, rank, known):
    """Of n examples their covariance has rank n - 1, of one and the same none: means are not among the directions."""
    params = {name: {**part, "bias": jnp.zeros(part["kernel"].shape[1])} for name, part in PARAMS.items()}

    def biased(params, x):
        x = x @ params["first"]["kernel"] + params["first"]["bias"]
        return x @ params["block"]["kernel"] + params["block"]["bias"]

    def compressed(ranks):
        chosen = lambda matrices, evidence: dict(zip(("first/kernel", "block/kernel"), ranks))  # noqa: E731
        method = lowrank.factorize(lowrank.atomic_features(), chosen)
        return sx.compress(biased, params, method, sx.correct_bias(), batches=batches).params

    with pytest.raises(ValueError, match=f"kernel: rank {rank} is above the {known} directions"):
        compressed((rank, 1))
    if known:
        assert compressed((known, known))["first"]["kernel"].rank == known


@pytest.mark.parametrize("factorization", DATA_AWARE)
def test_statistics_that_are_not_finite(factorization):
    made = DATA_AWARE[factorization]()
    refused("moments of (first|block)/kernel holds NaN or infinite", made, lowrank.fixed(2), [X.at[3, 2].set(jnp.inf)])
    weights = {"a": PARAMS["first"]["kernel"], "b": PARAMS["first"]["kernel"]}
    moments = {"a": X.T @ X / 40, "b": (X.T @ X / 40).at[0, 0].set(jnp.nan)}
    given = Evidence(
        {path: Layout((0,), (1,)) for path in weights}, moments=moments, means=dict.fromkeys(weights, X[0])
    )
    with pytest.raises(ValueError, match="b: the moments of its inputs holds NaN or infinite"):
        lowrank.factorize(made, lowrank.fixed(2)).init(weights, given)


def test_grouped_convolutions():
    """Alone they are refused by name; beside others they stay dense, and info says why."""
    kernels = {name: jnp.asarray(rng.normal(size=(3, 3, 4, 8)), jnp.float32) for name in ("grouped", "plain")}
    x = jnp.asarray(rng.normal(size=(8, 5, 5, 8)), jnp.float32)

    def convolved(params, x):
        run = lambda x, w, groups: jax.lax.conv_general_dilated(  # noqa: E731
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )
        return run(run(x, params["grouped"], 2)[..., :4], params["plain"], 1)

    made = lowrank.spatial(), lowrank.whitened(), lowrank.svd(), lowrank.gram_svd(), lowrank.block_diagonal(2)
    for factorization in made:
        method = lowrank.factorize(factorization, lowrank.fixed(2))
        with pytest.raises(ValueError, match="grouped: a convolution of 2 groups"):
            sx.compress(convolved, kernels, method, batches=[x], rule=lambda path, w: path == "grouped")
        out = sx.compress(convolved, kernels, method, batches=[x])
        assert out.params["grouped"] is kernels["grouped"]
        assert "a convolution of 2 groups" in out.info["grouped"]["steps"][0]["skipped"]
        assert isinstance(out.params["plain"], (sx.arrays.Separable, sx.LowRank, sx.Sum))
    half = lowrank.factorize(lowrank.svd(), lowrank.mac_budget(0.5))  # of what is split: no saving is made up
    out = sx.compress(convolved, kernels, half, batches=[x])
    usages, before = (sx.inspect(convolved, params, x) for params in (out.params, kernels))
    assert usages["grouped"].macs_now == before["grouped"].macs
    assert usages["plain"].macs_now <= 0.5 * before["plain"].macs
