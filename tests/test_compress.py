import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import lowrank, prune, quantize, tree
from spartax.compress import Compressed, chain, compress
from spartax.records import Criterion, Evidence, Layout, Transform
from tests.oracles import prune as oracle

pytestmark = pytest.mark.core
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 4)), jnp.float32)
BATCH = jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)
LABELS = jnp.array([0, 1, 2, 0])
TOKENS = jnp.array([[1, 2], [0, 3]])


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(8, (3, 3))(x))
        return nn.Dense(10)(nn.relu(x).mean((1, 2)))


NET = Net()
PARAMS = jax.tree.map(
    lambda s: jnp.asarray(np.random.default_rng(s.size).normal(size=s.shape), jnp.float32),
    jax.eval_shape(NET.init, jax.random.key(1), BATCH),
)
PLAIN = {"a": IMAGES[0].reshape(12, 12), "b": IMAGES[1].reshape(12, 12)}
ROWS = IMAGES.reshape(-1, 12)
KERNELS = ("params/Conv_0/kernel", "params/Dense_0/kernel")
MAGNITUDE = prune.prune(prune.magnitude(), 0.5)


def plain(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def probe(**seen):
    """A transform that changes nothing and notes the evidence."""

    def update(params, state, evidence):
        seen["log"].append(evidence)
        return params, state, {}

    return Transform(seen.get("needs", frozenset()), lambda params, evidence: (params, ()), update)


def evidence_of(*args, needs=frozenset(), **options):
    log = []
    compress(*args, probe(log=log, needs=frozenset(needs)), **options)
    return log[0]


def test_the_default_rule_takes_what_the_program_contracts():
    out = compress(NET.apply, PARAMS, MAGNITUDE, batches=[BATCH])
    assert isinstance(out, Compressed)
    assert list(out.info) == list(tree.weights(PARAMS))
    assert {p for p, entry in out.info.items() if "steps" in entry} == set(KERNELS)
    assert all("bias, a norm" in out.info[p]["excluded"] for p in out.info if p not in KERNELS)
    for path, w in tree.weights(out.params).items():
        assert isinstance(w, sx.Masked) if path in KERNELS else w is tree.weights(PARAMS)[path]


def test_result_is_that_of_the_dense_weights_and_params_are_untouched():
    before = jax.tree.map(np.array, PARAMS)
    out = compress(
        NET.apply,
        PARAMS,
        MAGNITUDE,
        quantize.quantize(quantize.integer(4, 4)),
        lowrank.compensate(lowrank.svd(), lowrank.fixed(1)),
        batches=[(BATCH, None)],
    )
    apply = jax.jit(NET.apply)
    want = apply(jax.jit(sx.dense)(out.params), IMAGES)
    np.testing.assert_allclose(out.apply(out.params, IMAGES), want, atol=1e-5)
    assert not np.allclose(want, apply(PARAMS, IMAGES), atol=1e-3)
    np.testing.assert_allclose(out.apply(PARAMS, IMAGES), apply(PARAMS, IMAGES), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, PARAMS, before)
    assert [s["method"] for s in out.info[KERNELS[0]]["steps"]] == ["prune", "quantize", "compensate"]


def test_transforms_see_what_the_one_before_left():
    """Pruning first, codes of what is left; a chain is the same."""
    steps = (MAGNITUDE, quantize.quantize(quantize.integer(3)))
    out = compress(plain, PLAIN, *steps, batches=[ROWS])
    scores = {p: np.abs(np.asarray(w)) for p, w in PLAIN.items()}
    counts = oracle.pooled_counts(list(scores.values()), sum(s.size for s in scores.values()) // 2)
    for (path, score), count in zip(scores.items(), counts):
        np.testing.assert_array_equal(out.params[path].mask, oracle.top(score, count))
    chained = compress(plain, PLAIN, chain(*steps), batches=[ROWS])
    jax.tree.map(np.testing.assert_array_equal, chained.params, out.params)
    assert chained.info == out.info


def test_already_compressed_params_go_further():
    first = compress(plain, PLAIN, MAGNITUDE, batches=[ROWS])
    second = compress(plain, first.params, quantize.quantize(quantize.integer(8)), batches=[ROWS])
    leaf = second.params["a"]
    assert isinstance(leaf, sx.Masked)
    assert isinstance(leaf.weight, sx.Quantized)
    np.testing.assert_array_equal(leaf.mask, first.params["a"].mask)


def test_rule_chooses_and_is_not_asked_about_biases():
    asked = []

    def rule(path, weight):
        asked.append(path)
        return "Conv" in path

    out = compress(NET.apply, PARAMS, MAGNITUDE, batches=[BATCH], rule=rule)
    assert asked == list(KERNELS)
    assert isinstance(tree.weights(out.params)[KERNELS[0]], sx.Masked)
    assert out.info[KERNELS[1]] == {"excluded": "left out by the rule"}


def test_without_batches_a_rule_names_flax_kernels():
    evidence = evidence_of(NET.apply, PARAMS, rule=lambda path, w: True)
    assert evidence.layouts == {KERNELS[0]: Layout((0, 1, 2), (3,)), KERNELS[1]: Layout((0,), (1,))}
    assert evidence.uses is None


def test_an_embedding_only_when_asked():
    def apply(params, x):
        return params["table"][x].mean(1) @ params["head"]

    params = {"table": jnp.ones((5, 8)), "head": jnp.ones((8, 3)), "unused": jnp.ones((2, 2))}
    out = compress(apply, params, MAGNITUDE, batches=[TOKENS])
    assert "embedding" in out.info["table"]["excluded"]
    assert "never contracted" in out.info["unused"]["excluded"]
    asked = compress(apply, params, quantize.quantize(quantize.integer(8)), batches=[TOKENS], rule=lambda p, w: True)
    assert tree.weights(asked.params)["table"].scale.shape == (5, 1), "one scale for each row that is looked up"
    assert isinstance(asked.params["unused"], jax.Array)


def test_layouts_and_uses_are_read_off_the_program():
    """Outputs first, and layers of a scan: what no convention could guess."""

    def apply(params, x):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["layers"])
        return x @ params["head"].T

    params = {"layers": jnp.ones((3, 6, 6)), "head": jnp.ones((10, 6))}
    evidence = evidence_of(apply, params, batches=[jnp.ones((2, 6))])
    assert evidence.layouts == {"head": Layout((1,), (0,)), "layers": Layout((1,), (2,), (0,))}
    assert {p: len(u) for p, u in evidence.uses.items()} == {"head": 1, "layers": 1}
    np.testing.assert_array_equal(evidence.originals["head"], params["head"])


def test_gradients_are_those_of_the_mean_loss_over_all_batches():
    def loss(logits, y):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0]

    batches = [(ROWS[:4], LABELS), (ROWS[4:5], LABELS[:1])]
    evidence = evidence_of(plain, PLAIN, needs={"grads"}, batches=iter(batches), loss=loss)
    x, y = (np.concatenate(both) for both in zip(*batches))
    want = jax.jit(jax.grad(lambda p: jnp.mean(loss(plain(p, x), y))))(PLAIN)
    assert set(evidence.grads) == {"a", "b"}
    for path, grad in evidence.grads.items():
        np.testing.assert_allclose(grad, want[path], atol=1e-6)
    assert evidence_of(plain, PLAIN, batches=[ROWS]).grads is None


def test_steps_that_draw_do_not_draw_the_same():
    twice = prune.prune(prune.random(), 0.5, prune.uniform())
    out = compress(plain, PLAIN, twice, twice, batches=[ROWS], key=jax.random.key(3))
    assert not any(np.array_equal(leaf.mask, leaf.weight.mask) for leaf in out.params.values())


def test_chain_refreshes_every_part():
    given = Evidence({"w": Layout((0,), (1,))})
    pipeline = chain(prune.prune(prune.magnitude(), 0.5), quantize.quantize(quantize.integer(8)))
    params, state = pipeline.init({"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, given)
    params, state, first = pipeline.update(params, state, given)
    params, state, second = pipeline.update(params, state, given)
    assert first == second
    assert [s["method"] for s in first["w"]["steps"]] == ["prune", "quantize"]
    np.testing.assert_array_equal(params["w"].mask, [[False, False], [True, True]])
    assert chain(MAGNITUDE) is MAGNITUDE


def refused(match, *transforms, params=PARAMS, **options):
    with pytest.raises(ValueError, match=match):
        compress(NET.apply, params, *(transforms or (MAGNITUDE,)), **options)


def test_bad_calls():
    with pytest.raises(ValueError, match="transforms: give at least one"):
        compress(NET.apply, PARAMS, batches=[BATCH])
    with pytest.raises(ValueError, match="chain: give at least one"):
        chain()
    refused("must be Transform records.*Criterion", Criterion(frozenset(), lambda w, e: w), batches=[BATCH])
    refused("give batches .* or a rule")
    refused("batches is empty", batches=[])
    refused(r"got one array: write batches=\[x\]", batches=IMAGES)
    refused("rule selects no weight.*left out by the rule", batches=[BATCH], rule=lambda path, w: False)
    refused("fails on these params and inputs", batches=[IMAGES[..., :2]])
    refused("fails on these params and inputs", params={"params": {}}, batches=[BATCH])


def test_missing_evidence_is_named():
    refused("key is needed", prune.prune(prune.random()), batches=[BATCH])
    needs_grads = Transform(frozenset({"grads"}), MAGNITUDE.init, MAGNITUDE.update)
    refused("grads is needed", needs_grads, batches=[(IMAGES, LABELS)])
    refused(
        "grads is needed .* from batches= with labels and loss=",
        needs_grads,
        batches=[IMAGES],
        loss=lambda logits, y: logits,
    )
    refused(
        "grads is needed .* from batches= with labels and loss=",
        needs_grads,
        batches=[(BATCH, LABELS)],
        loss=lambda logits, y: y,
    )


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("path", ["params/Dense_0/kernel", "params/LayerNorm_0/scale"])
def test_weights_that_are_not_finite_are_named(bad, path):
    broken = tree.replace(PARAMS, {path: tree.weights(PARAMS)[path].at[0].set(bad)})
    refused(f"{path} holds NaN or infinite", params=broken, batches=[BATCH])


@pytest.mark.parametrize("mask", [(1, 12), (12, 1), (1, 4)])
def test_a_mask_of_another_shape_is_refused_by_path(mask):
    """Also where it would broadcast, and under another mask."""
    params = {**PLAIN, "b": sx.Masked(sx.Masked(PLAIN["b"], jnp.ones(mask, bool)), jnp.ones((12, 12), bool))}
    message = rf"b: a mask must have the shape \(12, 12\) of its weight; got \({mask[0]}, {mask[1]}\)"
    with pytest.raises(ValueError, match=message):
        compress(plain, params, MAGNITUDE, batches=[ROWS])
    with pytest.raises(ValueError, match=message):
        prune.shrink(plain, params, ROWS)
