"""What every compressed leaf obeys: each verb agrees with `dense`."""

import dataclasses
import functools
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import arrays, tree
from spartax.arrays import verbs
from tests import leaves

CASES = [(name, shape) for shape in (leaves.DENSE, leaves.CONV) for name in leaves.examples(shape)]
# Swapping input and output, moving the output in front, permuting the spatial axes, and one that mixes them all.
PERMUTATIONS = {2: [(1, 0)], 4: [(3, 2, 0, 1), (1, 0, 2, 3), (0, 3, 1, 2)]}
ROUNDS_ACTIVATIONS = ("FakeInputs", "QuantizedInputs")  # their product is not that of x; their own tests say what it is
FLOAT = [(n, s) for n, s in CASES if n not in ("Packed", "Permuted")]


dense = jax.jit(sx.dense)  # one compilation a leaf; that it is the same without `jit` has a test of its own


@pytest.fixture(params=CASES, ids=lambda c: f"{c[0]}-{len(c[1])}d")
def case(request):
    return request.param


@pytest.fixture
def leaf(case):
    name, shape = case
    return leaves.examples(shape)[name]


@pytest.fixture
def whole(case):
    return whole_of(*case)


@functools.cache
def whole_of(name, shape):
    """The dense array of an example."""
    return np.asarray(dense(leaves.examples(shape)[name]))


def test_every_leaf_file_has_an_example():
    folder = pathlib.Path(arrays.__file__).parent
    classes = {
        value
        for module in folder.glob("*.py")
        for value in vars(__import__(f"spartax.arrays.{module.stem}", fromlist=["_"])).values()
        if inspect.isclass(value) and issubclass(value, verbs.Leaf) and value is not verbs.Leaf
    }
    assert classes == {kind for leaf in leaves.examples(leaves.CONV).values() for kind in nested(leaf)}


def nested(leaf):
    """The classes of a leaf and of the leaves in it."""
    inner = (getattr(leaf, field.name) for field in dataclasses.fields(leaf))
    parts = [p for part in inner for p in (part if isinstance(part, tuple) else (part,)) if isinstance(p, verbs.Leaf)]
    return {type(leaf), *(kind for part in parts for kind in nested(part))}


def test_looks_like_its_dense_array(leaf, whole):
    assert (leaf.shape, leaf.dtype, leaf.ndim) == (whole.shape, whole.dtype, whole.ndim)
    assert jax.eval_shape(sx.dense, leaf).shape == whole.shape


@pytest.mark.core
def test_jit_and_flatten(leaf, whole):
    eager = sx.dense(leaf)
    # a product of factors rounds at the size of its largest terms
    np.testing.assert_allclose(eager, whole, rtol=1e-6, atol=1e-6 * np.abs(whole).max())
    values, treedef = jax.tree.flatten(leaf)
    np.testing.assert_array_equal(sx.dense(treedef.unflatten(values)), eager)


@pytest.mark.core
def test_pack_is_exact_and_never_larger(leaf, whole):
    small = sx.pack(leaf)
    np.testing.assert_array_equal(dense(small), whole)
    assert sx.nbytes(small) <= sx.nbytes(leaf)
    assert jax.tree.structure(sx.pack(small)) == jax.tree.structure(small)


def dense_of_all(verb, leaf, choices):
    """The dense array of `verb(leaf, choice)` for every choice that the leaf knows, compiled together."""

    @jax.jit
    def run(leaf):
        moved = {i: verb(leaf, choice) for i, choice in enumerate(choices)}
        return {i: (sx.dense(one), jnp.zeros(one.shape)) for i, one in moved.items() if one is not None}

    found = run(leaf)
    assert all(values.shape == shape.shape for values, shape in found.values())
    return [(choices[i], values) for i, (values, _) in found.items()]


def test_transpose(leaf, whole):
    kept = dense_of_all(verbs.transpose, leaf, PERMUTATIONS[leaf.ndim])
    for axes, moved in kept:
        np.testing.assert_allclose(moved, np.transpose(whole, axes), rtol=1e-5, atol=1e-5)
    assert kept or not isinstance(leaf, sx.Quantized | sx.LowRank | sx.Masked) or _holds_bitmask(leaf)


def _holds_bitmask(leaf):
    return any(isinstance(x, sx.Bitmask) for x in jax.tree.leaves(leaf, is_leaf=lambda x: isinstance(x, sx.Bitmask)))


def test_take_rows(leaf, whole):
    choices = [np.array([0, 2, 2, 1]), np.array([[0], [1]]), np.array(2)]
    for rows, picked in dense_of_all(lambda leaf, rows: verbs.take(leaf, jnp.asarray(rows)), leaf, choices):
        np.testing.assert_allclose(picked, whole[rows], rtol=1e-6, atol=1e-6)


def test_reshape(leaf, whole):
    flat = (int(np.prod(leaf.shape[:-1])), leaf.shape[-1])
    for _, moved in dense_of_all(verbs.reshape, leaf, [flat]):
        np.testing.assert_allclose(moved, whole.reshape(flat), rtol=1e-6)


@pytest.mark.parametrize(("name", "shape"), FLOAT)
def test_cast(name, shape):
    leaf = leaves.examples(shape)[name]
    half = verbs.astype(leaf, jnp.bfloat16)
    if half is not None:
        assert half.dtype == jnp.bfloat16
        rounded, whole = dense(half), whole_of(name, shape)
        assert rounded.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(rounded, np.float32), whole, atol=0.01 * np.abs(whole).max())


@pytest.mark.core
@pytest.mark.parametrize("name", [n for n, s in FLOAT if s == leaves.DENSE and not n.startswith(ROUNDS_ACTIVATIONS)])
def test_matmul_and_its_gradients(name):
    leaf, x = leaves.examples(leaves.DENSE)[name], leaves.normal(5, 2, leaves.DENSE[0], seed=9)
    whole = whole_of(name, leaves.DENSE)
    trainable, fixed = sx.split(leaf)
    scale = 1 / float(np.abs(whole).max())  # a sine of hundreds would only compare roundings

    def loss(multiply, trainable, x):
        product = multiply(sx.merge(trainable, fixed), x)
        return jnp.sum(jnp.sin(scale * product)), product

    @jax.jit
    def gradients(trainable, x):
        ways = (sx.matmul, lambda w, x: x @ sx.dense(w))
        return [jax.grad(functools.partial(loss, way), argnums=(0, 1), has_aux=True)(trainable, x) for way in ways]

    (ours, product), (plain, _) = gradients(trainable, x)
    np.testing.assert_allclose(product, np.asarray(x) @ whole, rtol=1e-4, atol=1e-4)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.abs(b).max()))  # noqa: E731
    jax.tree.map(close, ours, plain)
    assert jax.tree.leaves(ours[0])


@pytest.mark.core
@pytest.mark.parametrize("name", [n for n, s in FLOAT if s == leaves.DENSE])
def test_stack_in_scan_and_vmap(name):
    """Three leaves stacked child by child are the stack of their dense weights."""
    shape = leaves.DENSE
    stack = jax.tree.map(lambda *v: jnp.stack(v), *[leaves.examples(shape)[name]] * 3)
    if not verbs.sliceable(stack):
        assert _holds_bitmask(stack)
        return
    whole = whole_of(name, shape)
    assert stack.shape == (3, *shape)

    @jax.jit
    def three_ways(stack):
        total, _ = jax.lax.scan(lambda total, layer: (total + sx.dense(layer), None), jnp.zeros(shape), stack)
        return sx.dense(stack), jax.vmap(sx.dense)(stack), total

    at_once, mapped, total = three_ways(stack)
    np.testing.assert_allclose(at_once, np.stack([whole] * 3), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mapped[1], whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(total, 3 * whole, rtol=1e-4, atol=1e-4)


@pytest.mark.core
@pytest.mark.parametrize("name", [n for n, s in FLOAT if s == leaves.DENSE])
def test_sharding_and_donation(name):
    leaf = leaves.examples(leaves.DENSE)[name]
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    placed = jax.device_put(leaf, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    np.testing.assert_array_equal(dense(placed), whole_of(name, leaves.DENSE))
    copy = jax.tree.map(jnp.copy, leaf)
    step = jax.jit(lambda w: jax.tree.map(lambda v: v + 1 if tree.is_floating(v) else v, w), donate_argnums=0)
    assert jax.tree.structure(step(copy)) == jax.tree.structure(leaf)


def test_split_and_merge(leaf, whole):
    trainable, fixed = sx.split({"w": leaf, "n": jnp.arange(3), "b": jnp.ones(2)})
    assert all(jnp.issubdtype(v.dtype, jnp.floating) for v in jax.tree.leaves(trainable))
    assert not any(jnp.issubdtype(v.dtype, jnp.floating) for v in jax.tree.leaves(fixed))
    np.testing.assert_array_equal(dense(sx.merge(trainable, fixed)["w"]), whole)
