import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import lowrank, prune, quantize
from spartax.lowrank import fitting
from spartax.records import Evidence, Layout
from tests import plugs

WEIGHTS, GIVEN = plugs.draw(), plugs.evidence()


def best(matrix, rank):
    u, s, vt = np.linalg.svd(np.asarray(matrix, np.float64))
    return u[:, :rank] * s[:rank] @ vt[:rank]


def test_every_layout_gets_its_nearest_matrix():
    params, info = plugs.run(lowrank.factorize(lowrank.svd(), lowrank.fixed(4)), WEIGHTS, GIVEN)
    for path in ("dense", "conv", "outputs_first"):
        weight = np.asarray(WEIGHTS[path])
        rows = 72 if path == "conv" else weight.shape[0]
        near = best(weight.reshape(rows, -1), 4).reshape(weight.shape)
        np.testing.assert_allclose(plugs.dense(params[path]), near, atol=1e-4, err_msg=path)
        assert info[path]["rank"] == 4
        error = np.linalg.norm(near - weight) / np.linalg.norm(weight)
        np.testing.assert_allclose(info[path]["relative_error"], error, rtol=1e-3)
    for layer in range(2):
        near = best(WEIGHTS["stack"][layer], 4)
        np.testing.assert_allclose(plugs.dense(params["stack"])[layer], near, atol=1e-4)


def test_shapes_of_the_factors():
    params, _ = plugs.run(lowrank.factorize(lowrank.svd(), lowrank.fixed(4)), WEIGHTS, GIVEN)
    shapes = {p: (w.left.shape, w.right.shape, w.columns) for p, w in params.items()}
    assert shapes == {
        "dense": ((24, 4), (4, 20), 1),
        "conv": ((3, 3, 8, 4), (4, 20), 1),
        "stack": ((2, 24, 4), (2, 4, 16), 1),
        "outputs_first": ((24, 4), (4, 20), 1),
    }


def test_convolution_stored_outputs_first_and_heads():
    weights = {"oihw": jnp.ones((6, 5, 3, 2)), "heads": jnp.ones((12, 2, 8)), "out": jnp.ones((2, 8, 12))}
    layouts = {"oihw": Layout((2, 3, 1), (0,)), "heads": Layout((0,), (1, 2)), "out": Layout((0, 1), (2,))}
    params, _ = plugs.run(lowrank.factorize(lowrank.svd(), lowrank.fixed(1)), weights, Evidence(layouts))
    shapes = {p: (w.left.shape, w.right.shape, w.columns) for p, w in params.items()}
    assert shapes == {
        "oihw": ((6, 1), (1, 5, 3, 2), 3),
        "heads": ((12, 1), (1, 2, 8), 2),
        "out": ((2, 8, 1), (1, 12), 1),
    }
    for path, w in params.items():
        np.testing.assert_allclose(plugs.dense(w), weights[path], atol=1e-5)


def test_a_weight_that_would_grow_stays_dense_and_says_so():
    weights = {"wide": jnp.ones((64, 64)), "thin": jnp.ones((64, 8))}
    given = Evidence({p: Layout((0,), (1,)) for p in weights})
    params, info = plugs.run(lowrank.factorize(lowrank.svd(), lowrank.fixed(8)), weights, given)
    assert isinstance(params["wide"], sx.LowRank)
    assert params["thin"] is weights["thin"]
    assert "at least as many bytes" in info["thin"]["skipped"]
    smaller, _ = plugs.run(lowrank.factorize(lowrank.svd(), lowrank.fixed(7)), weights, given)
    assert isinstance(smaller["thin"], sx.LowRank)


def test_a_weight_that_is_no_matrix_in_memory_stays_dense():
    weights = {"w": jnp.ones((9, 9, 9)), "dense": jnp.ones((24, 20))}
    given = Evidence({"w": Layout((0, 2), (1,)), "dense": Layout((0,), (1,))})
    params, info = plugs.run(lowrank.factorize(lowrank.svd(), lowrank.fixed(1)), weights, given)
    assert params["w"] is weights["w"]
    assert "no matrix" in info["w"]["skipped"]


def test_weights_of_one_shape_are_one_program_whatever_their_ranks(monkeypatch):
    rng = np.random.default_rng(0)
    weights = {str(i): jnp.asarray(rng.normal(size=(14, 10)), jnp.float32) for i in range(5)}
    given = Evidence({path: Layout((0,), (1,)) for path in weights})
    ranks = {path: 1 + i % 4 for i, path in enumerate(weights)}
    before = fitting._build._cache_size()
    params, _ = plugs.run(lowrank.factorize(lowrank.svd(), lambda matrices, evidence: ranks), weights, given)
    assert fitting._build._cache_size() == before + 1
    assert {path: leaf.rank for path, leaf in params.items()} == ranks
    for path, leaf in params.items():
        np.testing.assert_allclose(plugs.dense(leaf), best(weights[path], ranks[path]), atol=1e-4)
    monkeypatch.setattr(
        fitting, "TOGETHER", 2 * 140
    )  # what is decomposed at a time is bounded: two, two, one and a pad
    before = fitting._build._cache_size()
    parts, _ = plugs.run(lowrank.factorize(lowrank.svd(), lambda matrices, evidence: ranks), weights, given)
    assert fitting._build._cache_size() == before + 1
    for path, leaf in parts.items():
        np.testing.assert_allclose(plugs.dense(leaf), plugs.dense(params[path]), atol=1e-4)
    assert [len(part) for part, _ in fitting._parts(list(range(50)), 16)] == [13, 13, 13, 11]


def test_under_a_mask_and_not_under_codes():
    given = plugs.evidence({"dense": WEIGHTS["dense"]})
    masked, _ = plugs.run(prune.prune(prune.magnitude(), 0.5), {"dense": WEIGHTS["dense"]}, given)
    transform = lowrank.factorize(lowrank.svd(), lowrank.fixed(4))
    params, info = plugs.run(transform, masked, given)
    leaf = params["dense"]
    assert isinstance(leaf, sx.Masked)
    np.testing.assert_allclose(plugs.dense(leaf.weight), best(plugs.dense(masked["dense"]), 4), atol=1e-4)
    assert info["dense"]["rank"] == 4
    codes, _ = plugs.run(quantize.quantize(quantize.integer(8)), {"dense": WEIGHTS["dense"]}, given)
    with pytest.raises(ValueError, match="dense: a Quantized cannot be factorized"):
        transform.init(codes, given)


def test_dtype_of_the_weight_is_kept():
    weights = {"dense": WEIGHTS["dense"].astype(jnp.bfloat16)}
    params, _ = plugs.run(
        lowrank.factorize(lowrank.svd(), lowrank.fixed(4)), weights, plugs.evidence(weights)._replace(originals=None)
    )
    assert params["dense"].left.dtype == params["dense"].dtype == jnp.bfloat16
