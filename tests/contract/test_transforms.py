"""What every transform obeys, and every chain of them."""

import functools
import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spartax as sx
from spartax import arrays, lowrank, prune, quantize, train, tree
from spartax.chain import ChainState, chain
from spartax.program import Scalings
from spartax.records import Objective, Transform
from spartax.train.checkpoints import fingerprint, resume, save
from tests import plugs

JOINS = {
    "prune": lambda: prune.prune(prune.magnitude(), 0.75),
    "learnt_scores": lambda: prune.learnt_scores(0.75),
    "rigl": lambda: prune.rigl(0.75, end=10),
    "sparse_evolution": lambda: prune.sparse_evolution(0.75, end=10),
    "flying_bird": lambda: prune.flying_bird(lambda params: (1.0, 0.0), 0.75, end=10),
    "radmm": lambda: prune.radmm(0.75),
    "twin_rep": prune.twin_rep,
    "sr_ste": lambda: prune.sr_ste(2, 4),
    "selective_activation": lambda: prune.selective_activation(prune.prune(prune.magnitude(), 0.5, regrow=False)),
    "lapp": lambda: prune.lapp(bypass=0.2),
    "iterative": lambda: prune.iterative(
        prune.prune(prune.snip(), 0.75, schedule=prune.exponential(2), regrow=False), 2
    ),
    "movement": lambda: prune.movement(0.75),
    "swap": lambda: prune.swap(0.75, rounds=2),
    "factorize": lambda: lowrank.factorize(lowrank.svd(), lowrank.fixed(4)),
    "quantize": lambda: quantize.quantize(quantize.integer(4, group=4)),
    "mixed": lambda: quantize.mixed([quantize.integer(b) for b in (2, 4, 8)], quantize.fisher(), mean_bits=8),
    "lsq": lambda: quantize.lsq(3, activations=4),
    "pact": lambda: quantize.pact(4),
    "adapt": quantize.adapt,
    "qfx": lambda: quantize.qfx(6, activations=8),
    "double_rounding": quantize.double_rounding,
    "reste": lambda: quantize.reste(100, activations=True),
    "awq": lambda: quantize.awq(quantize.integer(3)),
    "equalize": quantize.equalize,
    "smooth": quantize.smooth,
    "activations": lambda: quantize.activations(8, observer=quantize.min_max()),
    "compensate": lambda: chain(
        quantize.quantize(quantize.integer(3)), lowrank.compensate(lowrank.svd(), lowrank.fixed(2))
    ),
    "trained_rank": lambda: lowrank.trained_rank(0.8),
    "maestro": lowrank.maestro.decomposed,
    "prune random, N:M": lambda: prune.prune(prune.random(), pattern=prune.n_of_m(2, 4)),
    "prune, quantize, correct": lambda: chain(
        prune.prune(prune.magnitude(), 0.5, prune.uniform()),
        quantize.quantize(quantize.integer(4)),
        lowrank.compensate(lowrank.svd(), lowrank.fixed(2)),
    ),
    "learnt_scores, quantize": lambda: chain(
        prune.learnt_scores(0.5, prune.pooled()), quantize.quantize(quantize.integer(8))
    ),
    "factorize, quantize": lambda: chain(
        lowrank.factorize(lowrank.svd(), lowrank.byte_budget(0.5)), quantize.quantize(quantize.integer(8))
    ),
}
# Ranking what a later step made of the weights is not the first ranking; AP removes with every other update; the dual
# variables of ADMM add up.
RANKS_AGAIN = {"prune, quantize, correct", "trained_rank", "selective_activation", "radmm"}
STAYS_DENSE = {"trained_rank", "awq", "equalize", "smooth"}


def named(weights):
    return {path.removeprefix("layer/"): w for path, w in weights.items()}


WEIGHTS = {p: w for p, w in plugs.draw().items() if p == "dense"}
PARAMS = {"layer": dict(WEIGHTS), "bias": jnp.arange(3.0), "step": jnp.arange(4)}
GIVEN = plugs.evidence(WEIGHTS)._replace(
    layouts={f"layer/{p}": plugs.LAYOUTS[p] for p in WEIGHTS},
    originals={f"layer/{p}": w for p, w in WEIGHTS.items()},
    **{
        field: {f"layer/{p}": plugs.statistics()[field][p] for p in WEIGHTS}
        for field in ("grads", "magnitudes", "means", "peaks", "ranges")
    },
    objective=Objective(lambda w, x: plugs.network(named(w), x), (plugs.batch(),), plugs.cross_entropy),
    scalings=Scalings({}, {f"layer/{p}": "an input of the model" for p in WEIGHTS}),
)


@pytest.fixture(params=list(JOINS))
def name(request):
    return request.param


@pytest.fixture
def transform(name):
    return JOINS[name]()


@functools.cache
def updates(name):
    """The transform, and what it gave: `init`, and two updates after it."""
    transform = JOINS[name]()
    given = [transform.init(PARAMS, GIVEN)]
    for _ in range(2):
        given.append(transform.update(*given[-1][:2], GIVEN))
    return transform, *given


def shapes(params):
    return [(x.shape, x.dtype) for x in jax.tree.leaves(params)]


def test_every_public_transform_is_here():
    made = {
        key
        for face in (prune, lowrank, quantize)
        for key in face.__all__
        if inspect.isfunction(getattr(face, key))
        and typing.get_type_hints(getattr(face, key)).get("return") is Transform
    }
    assert made <= set(JOINS)


def test_structure_is_final_after_init(transform):
    first, state = transform.init(PARAMS, GIVEN)
    for _ in range(2):
        params, state, _ = transform.update(first, state, GIVEN)
        assert jax.tree.structure(params) == jax.tree.structure(first)
        assert shapes(params) == shapes(first)


def test_only_the_selection_is_touched(name, transform):
    before = jax.tree.map(np.array, PARAMS)
    params, info = plugs.run(transform, PARAMS, GIVEN)
    assert params["bias"] is PARAMS["bias"]
    assert params["step"] is PARAMS["step"]
    assert set(info) == set(GIVEN.layouts)
    jax.tree.map(np.testing.assert_array_equal, PARAMS, before)
    for path, w in tree.pick(params, GIVEN.layouts).items():
        known = sx.Masked | sx.Scored | sx.LowRank | sx.Quantized | sx.Sum | sx.TopOfGroups | sx.Thresholded
        known |= arrays.FakeQuantized | arrays.FakeInputs | arrays.QuantizedInputs | arrays.Pulled | arrays.Twin
        assert isinstance(w, known) or name in STAYS_DENSE
        assert w.shape == GIVEN.originals[path].shape
        assert w.dtype == jnp.float32
        assert np.isfinite(np.asarray(plugs.dense(w))).all()


def test_a_second_update_with_the_same_evidence_changes_nothing(name):
    _, _, (params, *_), (again, *_) = updates(name)
    if name not in RANKS_AGAIN:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), again, params)


def test_what_was_saved_in_training_goes_on_the_same(name, tmp_path):
    transform, start, (params, state, info), (*expected, _) = updates(name)
    *found, _ = transform.update(*restored(tmp_path, start, params, state, info), GIVEN)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    if isinstance(start[1], ChainState):  # it holds what init did until the first update hands it out
        assert restored(tmp_path, start, *start, {})[1].report.keys() == info.keys()


def restored(folder, start, *saved):
    """Params and state of a method, through a checkpoint of `train.fit` that began with those of `start`."""

    def begun(params, state, info):
        method = train.Method(state, GIVEN.layouts, info)
        return train.init_state(params, optax.identity(), method=method)

    keep, first = train.checkpoints(folder, every=1, config={}), begun(*start, {})
    mark = fingerprint(keep, first, jax.random.key(0))
    save(keep, mark, begun(*saved), [])
    state, _ = resume(keep, mark, first)
    return state.variables, state.method.state


def test_refreshing_does_not_retrace(transform):
    traces = []

    @jax.jit
    def total(params):
        traces.append(1)
        return sum(jnp.sum(sx.dense(w)) for w in tree.weights(params).values())

    params, state = transform.init(PARAMS, GIVEN)
    for seed in range(2):
        given = GIVEN._replace(key=jax.random.key(seed))
        params, state, _ = transform.update(params, state, given)
        total(params)
    assert len(traces) == 1


def test_an_unknown_path_is_an_error(transform):
    wrong = GIVEN._replace(layouts={"layer/denes": GIVEN.layouts["layer/dense"]})
    with pytest.raises(ValueError, match="layer/dense"):
        transform.init(PARAMS, wrong)


def test_the_state_holds_only_arrays_and_numbers(transform):
    _, state = transform.init(PARAMS, GIVEN)
    assert all(isinstance(x, int | jax.Array) for x in jax.tree.leaves(state))
