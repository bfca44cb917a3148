import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import prune, quantize
from spartax.records import Allocation, Criterion, Evidence, Layout, Objective
from tests import plugs
from tests.oracles import golden
from tests.oracles import prune as oracle

WEIGHTS, GIVEN = plugs.draw(), plugs.evidence()
ONE = plugs.evidence({"dense": WEIGHTS["dense"]})


def masks(transform, params=WEIGHTS, given=GIVEN):
    return {path: np.asarray(w.mask) for path, w in plugs.run(transform, params, given)[0].items()}


def test_default_is_global_magnitude_at_ninety_percent():
    """One threshold over everything, the layers' floors, and the largest of each layer."""
    found = masks(prune.prune(prune.magnitude()))
    scores = [np.abs(np.asarray(WEIGHTS[path])) for path in found]
    total = sum(s.size for s in scores)
    raw = oracle.pooled_counts(scores, round(0.1 * total))
    assert min(raw) < 10, "no layer is near its floor: this would not see the guard"
    assert sum(m.sum() for m in found.values()) == round(0.1 * total)
    for (path, mask), score in zip(found.items(), scores):
        assert mask.sum() >= np.ceil(0.005 * score.size)
        np.testing.assert_array_equal(mask, oracle.top(score, mask.sum()), err_msg=path)


def test_layerwise_magnitude_golden():
    kernel = {"w": jnp.asarray(golden.inputs()[0].T, jnp.float32)}
    given = Evidence({"w": Layout((0,), (1,))})
    pruned, info = plugs.run(prune.prune(prune.magnitude(), 0.5, prune.uniform()), kernel, given)
    assert info["w"] == {
        "method": "prune",
        "kept": 48,
        "size": 96,
        "sparsity": 0.5,
        "outputs_without_input": 0,
        "connected": None,
    }
    np.testing.assert_allclose(
        golden.output_error(plugs.dense(pruned["w"])), golden.NUMBERS["magnitude50_err"], rtol=1e-5
    )


def test_a_removed_entry_may_come_back():
    transform = prune.prune(prune.magnitude(), 0.5, prune.uniform())
    given = Evidence({"w": Layout((0,), (1,))})
    params, state = transform.init({"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, given)
    params, state, _ = transform.update(params, state, given)
    np.testing.assert_array_equal(plugs.dense(params["w"]), [[0, 0], [3, 4]])
    grown = {"w": sx.Masked(jnp.array([[9.0, 2.0], [3.0, 4.0]]), params["w"].mask)}
    params, _, _ = transform.update(grown, state, given)
    np.testing.assert_array_equal(plugs.dense(params["w"]), [[9, 0], [0, 4]])


def test_after_quantization_the_codes_stay_under_the_mask():
    given = plugs.evidence({"dense": WEIGHTS["dense"]})
    codes, _ = plugs.run(quantize.quantize(quantize.integer(4)), {"dense": WEIGHTS["dense"]}, given)
    pruned, _ = plugs.run(prune.prune(prune.magnitude(), 0.5, prune.uniform()), codes, given)
    leaf = pruned["dense"]
    assert isinstance(leaf, sx.Masked)
    assert isinstance(leaf.weight, sx.Quantized)
    score = np.abs(np.asarray(plugs.dense(codes["dense"])))
    np.testing.assert_array_equal(leaf.mask, oracle.top(score, score.size // 2))


def test_two_masks_of_one_weight_are_kept_apart():
    coarse = prune.prune(prune.magnitude(), pattern=prune.n_of_m(2, 4))
    fine = prune.prune(prune.magnitude(), 0.75, prune.uniform())
    weights = {"dense": WEIGHTS["dense"]}
    given = plugs.evidence(weights)
    params, outer = coarse.init(weights, given)
    params, outer, _ = coarse.update(params, outer, given)
    params, inner = fine.init(params, given)
    params, inner, _ = fine.update(params, inner, given)
    first = params["dense"]
    assert (int(first.mask.sum()), int(first.weight.mask.sum())) == (120, 240)
    assert not bool(jnp.any(first.mask & ~first.weight.mask))
    again, _, _ = coarse.update(params, outer, given)
    np.testing.assert_array_equal(again["dense"].mask, first.mask)
    np.testing.assert_array_equal(again["dense"].weight.mask, first.weight.mask)


def test_a_pattern_that_fixes_the_fraction_decides_it():
    found = masks(prune.prune(prune.magnitude(), pattern=prune.n_of_m(1, 4)))
    for path, mask in found.items():
        score = np.abs(np.asarray(WEIGHTS[path]))
        np.testing.assert_array_equal(mask, oracle.n_of_m(score, 1, 4, GIVEN.layouts[path].inputs[-1]))
    with pytest.raises(ValueError, match=r"sparsity must be 0.5, which the pattern fixes; got 0.9"):
        prune.prune(prune.magnitude(), 0.9, pattern=prune.n_of_m(2, 4))
    mixed = prune.prune(prune.magnitude(), 0.5, prune.lamp(), prune.n_of_m(2, 4))
    with pytest.raises(ValueError, match=r"dense: n_of_m\(2, 4\) keeps 240 of 480 weights, not"):
        masks(mixed)


def test_a_pattern_that_does_not_fit_is_named_by_path_at_init():
    transform = prune.prune(prune.magnitude(), pattern=prune.n_of_m(2, 7))
    with pytest.raises(ValueError, match=r"dense: n_of_m.* divisible by 7; got 24"):
        transform.init(WEIGHTS, GIVEN)


def test_an_empty_layer_is_an_error_unless_asked_for():
    weights = {"weak": jnp.full((2, 3), 0.1), "strong": jnp.ones((4, 3))}
    given = Evidence({p: Layout((0,), (1,)) for p in weights})
    with pytest.raises(ValueError, match="weak: no weight would be left"):
        masks(prune.prune(prune.magnitude(), 0.5, prune.pooled(0)), weights, given)
    allowed = prune.prune(prune.magnitude(), 0.5, prune.pooled(0), allow_empty=True)
    assert not masks(allowed, weights, given)["weak"].any()
    assert masks(prune.prune(prune.magnitude(), 0.5, prune.pooled(1)), weights, given)["weak"].sum() == 1


def test_blocks_are_ranked_over_all_weights_and_counts_are_whole():
    """Global: blocks of 4 x 4 by their mean over all weights, as many as fit; not a ranking of single entries."""
    weights = {"dense": 3.0 * WEIGHTS["dense"], "outputs_first": WEIGHTS["outputs_first"]}
    given = plugs.evidence(weights)._replace(objective=None)
    pruned, info = plugs.run(prune.prune(prune.magnitude(), 0.75, prune.pooled(0), prune.block((4, 4))), weights, given)
    means = {p: np.abs(np.asarray(w)).reshape(6, 4, 5, 4).mean((1, 3)) for p, w in weights.items()}
    counts = oracle.pooled_counts(list(means.values()), 15)
    assert [info[p]["kept"] for p in weights] == [16 * n for n in counts]
    assert 0 < counts[0] < counts[1]
    for (path, mean), n in zip(means.items(), counts):
        np.testing.assert_array_equal(pruned[path].mask, np.kron(oracle.top(mean, n), np.ones((4, 4))))


def test_blocks_that_are_gone_stay_so_and_others_keep_as_many_more():
    """Half of 60 blocks: `dense` has 5 of its 30 left, so `outputs_first` keeps 25 instead of 15."""
    weights = {path: WEIGHTS[path] for path in ("dense", "outputs_first")}
    given = plugs.evidence(weights)._replace(objective=None)
    transform = prune.prune(prune.magnitude(), 0.5, prune.uniform(), prune.block((4, 4)), regrow=False)
    params, state = transform.init(weights, given)
    left = jnp.arange(24)[:, None] + jnp.zeros((1, 20)) < 4
    params["dense"] = sx.Masked(weights["dense"], left)
    params, _, info = transform.update(params, state, given)
    assert [info[p]["kept"] for p in weights] == [5 * 16, 25 * 16]
    np.testing.assert_array_equal(params["dense"].mask, left)
    means = np.abs(np.asarray(weights["outputs_first"])).reshape(6, 4, 5, 4).mean((1, 3))
    np.testing.assert_array_equal(params["outputs_first"].mask, np.kron(oracle.top(means, 25), np.ones((4, 4))))


def test_too_few_entries_for_one_unit_each():
    weights = {"dense": WEIGHTS["dense"], "conv": WEIGHTS["conv"]}
    with pytest.raises(ValueError, match="one unit of each weight takes 1120"):
        plugs.run(prune.prune(prune.magnitude(), 0.8, pattern=prune.block((32, 32))), weights, plugs.evidence(weights))


def test_nearly_empty_and_cut_weights_are_warned_about():
    """x [3] -> a [3, 4] -> b [4, 5]: `a` keeps what leads to its unit 0 alone, and `b` nothing that reads it."""
    weights = {"a": jnp.zeros((3, 4)).at[:, 0].set(9.0) + 0.1, "b": jnp.full((4, 5), 5.0).at[0].set(0.1)}
    network = jax.jit(lambda w, x: jax.nn.relu(x @ w["a"] + 1.0) @ w["b"])
    given = Evidence({p: Layout((0,), (1,)) for p in weights}, objective=Objective(network, (jnp.ones((2, 3)),)))
    _, cut = plugs.run(prune.prune(prune.magnitude(), 14 / 32, prune.pooled(0)), weights, given)
    assert [cut[p]["kept"] for p in "ab"] == [3, 15]
    assert [cut[p]["connected"] for p in "ab"] == [False, False]
    assert [w.split(":")[0] for w in cut["a"]["warnings"]] == ["nearly empty", "on no live path"]
    assert [w.split(":")[0] for w in cut["b"]["warnings"]] == ["on no live path"]
    _, unknown = plugs.run(
        prune.prune(prune.magnitude(), 14 / 32, prune.pooled(0)), weights, given._replace(objective=None)
    )
    assert [unknown[p]["connected"] for p in "ab"] == [None, None]
    assert "warnings" not in unknown["b"]
    _, whole = plugs.run(prune.prune(prune.magnitude(), 0.0), weights, given)
    assert [(whole[p]["connected"], "warnings" in whole[p]) for p in "ab"] == [(True, False)] * 2


def test_compress_asks_the_network_for_magnitude_too():
    """Kept entries of `b` read unit 1, which nothing reaches; without values of images nobody knows."""
    params = {"a": jnp.array([[2.0, 0.1]]), "b": jnp.array([[0.1], [2.0]])}
    transform = prune.prune(prune.magnitude(), 0.5)
    network = lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"]  # noqa: E731
    for batch, alive in ((jnp.ones((2, 1)), False), (jax.ShapeDtypeStruct((2, 1), jnp.float32), None)):
        info = sx.compress(network, params, transform, batches=[batch]).info
        assert [info[p]["steps"][0]["connected"] for p in "ab"] == [alive, alive]
    endless = lambda w, x: jax.lax.while_loop(lambda h: jnp.any(h < 0), lambda h: h + 1, network(w, x))  # noqa: E731
    info = sx.compress(endless, params, transform, batches=[jnp.ones((2, 1))]).info
    assert info["a"]["steps"][0]["connected"] is None


def refusals():
    magnitude, dense = prune.magnitude(), plugs.evidence({"dense": WEIGHTS["dense"]})
    scores = lambda change: Criterion(frozenset(), lambda w, e: change(magnitude.score(w, e)))  # noqa: E731
    return {
        "fewer entries than there are weights": prune.prune(magnitude, 0.999, prune.pooled(0)),
        "divisible by 7; got 24": prune.prune(magnitude, pattern=prune.n_of_m(2, 7)),
        r"must have shape \(24, 20\); got \(20, 24\)": prune.prune(scores(lambda s: {"dense": s["dense"].T})),
        r"must score \['dense'\]; got \['denes'\]": prune.prune(scores(lambda s: {"denes": s["dense"]})),
        "keep 0 to 480 entries of dense; got 481": prune.prune(magnitude, 0.5, lambda s, a, e: {"dense": 481}),
        r"must count \['dense'\]; got \[\]": prune.prune(magnitude, 0.5, lambda s, a, e: {}),
        r"mask of dense must be bool\(24, 20\); got bool\(20, 24\)": prune.prune(
            magnitude, 0.5, pattern=lambda s, k, layout: prune.unstructured()(s, k, layout).T
        ),
        r"got float32\(24, 20\)": prune.prune(magnitude, 0.5, pattern=lambda s, k, layout: s),
    }, dense


@pytest.mark.parametrize("message", list(refusals()[0]))
def test_what_does_not_fit_is_refused_and_params_stay_as_they_were(message):
    transforms, given = refusals()
    before = np.array(WEIGHTS["dense"])
    params = {"dense": jnp.asarray(before)}
    with pytest.raises(ValueError, match=message):
        plugs.run(transforms[message], params, given)
    assert list(params) == ["dense"]
    np.testing.assert_array_equal(params["dense"], before)


def test_what_shapes_alone_forbid_is_refused_before_anything_is_measured():
    """The batches would fail if the network ran on them."""
    ran = []

    def spoiled(logits, y):
        ran.append(1)
        return plugs.cross_entropy(logits, y)

    criterion = Criterion(frozenset({"grads"}), lambda w, e: e.grads)
    options = {"batches": [plugs.batch()], "loss": spoiled}
    slow = {path: {1.0: 2.0, 0.5: 1.0} for path in WEIGHTS}
    for message, choices in {
        "conv: .* divisible by 7": {"pattern": prune.n_of_m(2, 7)},
        "fewer entries than there are weights": {"sparsity": 0.9999, "allocation": prune.pooled(0)},
        "dense, outputs_first: no weight would be left; .* allow_empty": {
            "sparsity": 0.999,
            "allocation": prune.uniform(),
        },
        "conv: no weight would be left": {"allocation": prune.given({"conv": 1.0})},
        r"min_kept=0.2 asks for 634 weights, but this sparsity keeps 317": {"allocation": prune.pooled(0.2)},
        r"min_kept=0.2 takes 0.2000 of the multiply-adds": {"allocation": prune.by_macs(0.2)},
        "above the grid, which ends at 0.5": {"allocation": prune.rate_distortion((0.5,))},
        "the fastest of the table takes 4 s": {"allocation": prune.by_latency(slow)},
        r"allocation: the pattern keeps 0.5 of every weight.* take prune.uniform\(\)": {
            "allocation": prune.pooled(),
            "pattern": prune.n_of_m(2, 4),
        },
        r"dense: n_of_m\(2, 4\) keeps 240 of 480 weights, not": {
            "allocation": prune.given({"dense": 0.6}),
            "pattern": prune.n_of_m(2, 4),
        },
        "leaves 1584 of 3168 entries, but one unit of each weight takes 1984": {
            "pattern": prune.block((32, 32)),
            "sparsity": 0.5,
        },
        "leaves 634 of 3168 entries, but one unit": {
            "pattern": prune.block((32, 32)),
            "sparsity": 0.8,
            "allocation": prune.uniform(),
        },
    }.items():
        transforms = prune.prune(prune.magnitude(), 0.1), prune.prune(criterion, **choices)
        with pytest.raises(ValueError, match=message):
            sx.compress(plugs.network, WEIGHTS, *transforms, **options)
        assert not ran, message
    with pytest.raises(ValueError, match="rule selects no weight"):
        sx.compress(plugs.network, WEIGHTS, prune.prune(criterion), rule=lambda path, w: False, **options)
    assert not ran


def test_outputs_without_input_are_reported():
    kernel = jnp.array([[1.0, 5.0, 6.0], [2.0, 7.0, 8.0]])
    given = Evidence({"w": Layout((0,), (1,))})
    _, info = plugs.run(prune.prune(prune.magnitude(), 1 / 3), {"w": kernel}, given)
    assert info["w"]["outputs_without_input"] == 1


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, "0.5", float("nan")])
def test_bad_sparsity(sparsity):
    with pytest.raises(ValueError, match="sparsity must be in"):
        prune.prune(prune.magnitude(), sparsity)


def test_scores_that_are_not_finite_are_named():
    weights = {"w": jnp.array([[1.0, jnp.nan]])}
    with pytest.raises(ValueError, match="the score of w holds NaN"):
        masks(prune.prune(prune.magnitude(), 0.5), weights, Evidence({"w": Layout((0,), (1,))}))


def test_missing_key_and_missing_init():
    transform = prune.prune(prune.random(), 0.5)
    params, state = transform.init(WEIGHTS, GIVEN)
    with pytest.raises(ValueError, match="key is needed"):
        transform.update(params, state, GIVEN._replace(key=None))
    with pytest.raises(ValueError, match="call its init first"):
        transform.update(WEIGHTS, state, GIVEN)


def test_any_function_is_an_allocation():
    def one_each(scores, sparsity, evidence):
        return dict.fromkeys(scores, 1)

    allocation: Allocation = one_each
    found = masks(prune.prune(prune.magnitude(), 0.5, allocation))
    assert all(m.sum() == 1 and m.flat[np.abs(WEIGHTS[p]).argmax()] for p, m in found.items())


def test_sharded_weights_get_the_same_masks():
    mesh = jax.make_mesh((8,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    weights = {"dense": WEIGHTS["dense"]}
    given = Evidence({p: Layout((0,), (1,)) for p in weights})
    placed = {p: jax.device_put(w, sharding) for p, w in weights.items()}
    one, eight = (masks(prune.prune(prune.magnitude()), w, given) for w in (weights, placed))
    jax.tree.map(np.testing.assert_array_equal, one, eight)


def halving(pattern_seen):
    """A criterion that keeps what is large and halves it."""

    def solve(weights, evidence):
        scores = prune.magnitude().score(weights, evidence)

        def finish(path, keep, pattern):
            pattern_seen.append((path, keep, pattern))
            mask = pattern(scores[path], keep, evidence.layouts[path])
            return jnp.where(mask, weights[path] / 2, 0), mask

        return scores, finish

    return prune.magnitude()._replace(solve=solve)


def test_a_criterion_may_move_the_weights_it_keeps():
    seen = []
    params = {"w": jnp.array([[1.0, -2.0], [8.0, 4.0]])}
    transform = prune.prune(halving(seen), 0.5, prune.uniform())
    (pruned, info) = plugs.run(transform, params, Evidence({"w": Layout((0,), (1,))}))
    np.testing.assert_array_equal(plugs.dense(pruned["w"]), [[0, 0], [4, 2]])
    assert info["w"]["kept"] == 2
    assert seen == [("w", 2, prune.unstructured())]


def test_weights_that_are_fixed_already_cannot_be_moved():
    quantized = plugs.run(quantize.quantize(quantize.integer(4)), {"dense": WEIGHTS["dense"]}, ONE)[0]
    transform = prune.prune(halving([]), 0.5)
    params, state = transform.init(quantized, ONE)
    with pytest.raises(ValueError, match="dense: this criterion moves the weights it keeps, and a Quantized is fixed"):
        transform.update(params, state, ONE)


def test_errors_while_a_weight_is_finished_name_it():
    def finish(path, keep, pattern):
        raise ValueError("no way")

    criterion = prune.magnitude()._replace(solve=lambda w, e: (prune.magnitude().score(w, e), finish))
    with pytest.raises(ValueError, match="dense: no way"):
        plugs.run(prune.prune(criterion, 0.5), {"dense": WEIGHTS["dense"]}, ONE)
