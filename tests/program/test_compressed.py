"""`compressed`: the same numbers as the dense function, through the leaf's kernel wherever one can take the use."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import spartax as sx
from tests import leaves

pytestmark = pytest.mark.core
KEY = jax.random.key(0)


def same(fn, weight, *args, tol=1e-5):
    """compressed(fn) on the leaf equals fn on its dense weight; returns what `explain` says of the weight."""
    ours, plain = sx.compressed(fn)(weight, *args), jax.jit(fn)(sx.dense(weight), *args)
    scale = max(float(jnp.max(jnp.abs(v))) for v in jax.tree.leaves(plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tol * scale), ours, plain)
    return " | ".join(sx.explain(fn, weight, *args)[""])


def low(shape, columns=1, rank=2):
    cut = len(shape) - columns
    left, right = leaves.normal(*shape[:cut], rank), leaves.normal(rank, *shape[cut:], seed=1)
    return sx.LowRank(left, right, columns)


DOTS = {
    "x @ w": ("bi,io->bo", (5, 6), (6, 4), 1),
    "w @ x": ("oi,ib->ob", (6, 5), (4, 6), 1),
    "batch of rows": ("abi,io->abo", (2, 3, 6), (6, 4), 1),
    "heads out": ("bi,ihd->bhd", (5, 6), (6, 2, 3), 2),
    "heads in": ("bhd,hdo->bo", (5, 2, 3), (2, 3, 4), 1),
    "heads in, other order": ("bdh,hdo->ob", (5, 3, 2), (2, 3, 4), 1),
    "columns contracted": ("bo,io->bi", (5, 4), (6, 4), 1),
    "one weight a layer": ("lbi,lio->lbo", (3, 5, 6), (3, 6, 4), 1),
}


@pytest.mark.parametrize("name", DOTS)
def test_dot_layouts_hit_the_factors(name):
    spec, x_shape, w_shape, columns = DOTS[name]
    x = leaves.normal(*x_shape, seed=5)
    left_spec = spec.split(",")[0]
    order = (lambda w, x: (w, x)) if left_spec[0] == "o" else (lambda w, x: (x, w))
    if name == "one weight a layer":
        weight = sx.LowRank(leaves.normal(3, 6, 2), leaves.normal(3, 2, 4, seed=1))
    else:
        weight = low(w_shape, columns)
    assert "two thin products" in same(lambda w, x: jnp.einsum(spec, *order(w, x)), weight, x)


def test_a_batch_of_no_rows():
    """Every leaf with a kernel, as a Dense kernel and as that of a 1 x 1 convolution; traced only."""
    convolve = functools.partial(lax.conv_general_dilated, window_strides=(1, 1), padding="SAME")
    image = lambda w, x: convolve(x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"))  # noqa: E731
    for shape, fn, x in (((12, 10), lambda w, x: x @ w, (0, 12)), ((1, 1, 4, 6), image, (0, 5, 5, 4))):
        codes, x = leaves.quantized(shape), jax.ShapeDtypeStruct(x, jnp.float32)
        weights = [codes, sx.QuantizedInputs(codes), leaves.fake_inputs(codes), leaves.blocks(shape)]
        weights += [leaves.groups(shape), sx.Sum((codes, leaves.lowrank(shape)))]
        for path in ("xla", "pallas"):
            with sx.kernels(path):
                assert all(jax.eval_shape(sx.compressed(fn), w, x).size == 0 for w in weights)


@pytest.mark.parametrize("layer", [-5, -1, 1, 7])
def test_a_layer_out_of_range_is_the_one_that_jax_takes(layer):
    stack = sx.LowRank(leaves.normal(3, 6, 2), leaves.normal(3, 2, 4, seed=1))
    same(lambda w, x, i: x @ lax.dynamic_index_in_dim(w, i, keepdims=False), stack, leaves.normal(5, 6), layer)


def test_contraction_across_the_cut_is_made_dense():
    told = same(lambda w, x: jnp.einsum("bio,io->b", x, w), low((6, 4)), leaves.normal(5, 6, 4))
    assert "dense" in told
    assert "thin" not in told


CONVS = {
    "strided": ({"window_strides": (2, 2), "padding": "SAME"}, (3, 3, 4, 6)),
    "dilated": ({"window_strides": (1, 1), "padding": ((2, 1), (0, 3)), "rhs_dilation": (2, 1)}, (3, 2, 4, 6)),
    "transposed": ({"window_strides": (1, 1), "padding": ((2, 1), (0, 3)), "lhs_dilation": (2, 2)}, (3, 3, 4, 6)),
}


@pytest.mark.parametrize("name", CONVS)
def test_convolutions_stay_thin(name):
    options, shape = CONVS[name]
    x = leaves.normal(2, 8, 7, 4, seed=5)

    def convolve(w, x):
        return lax.conv_general_dilated(x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)

    assert "thin convolution then 1x1" in same(convolve, low(shape), x)


def test_convolution_stored_output_first():
    x = leaves.normal(2, 4, 8, 7, seed=5)
    told = same(lambda w, x: lax.conv(x, w, (1, 2), "SAME"), low((6, 4, 3, 3), columns=3), x)
    assert "thin convolution" in told


def test_grouped_convolution_is_made_dense():
    def convolve(w, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=2)

    assert "dense" in same(convolve, low((3, 3, 2, 6)), leaves.normal(2, 5, 5, 4))


def test_a_weight_that_is_the_image_of_a_convolution():
    """Style-transfer and hyper-network code does this; there is no kernel for it."""
    image = low((1, 6, 6, 4))
    numbers = ("NHWC", "HWIO", "NHWC")
    told = same(lambda w, k: lax.conv_general_dilated(w, k, (1, 1), "SAME", dimension_numbers=numbers), image,
                leaves.normal(3, 3, 4, 2))  # fmt: skip
    assert "image of the convolution" in told


LOOPS = {
    "jit": lambda w, x: jax.jit(lambda w, x: jnp.tanh(x @ w))(w, x),
    "remat": lambda w, x: jax.checkpoint(lambda w, x: jnp.tanh(x @ w), policy=jax.checkpoint_policies.dots_saveable)(
        w, x
    ),
    "scan constant": lambda w, x: lax.scan(lambda c, _: (jnp.tanh(c @ w), c.sum()), x, None, length=3),
    "fori": lambda w, x: lax.fori_loop(0, 3, lambda i, c: jnp.tanh(c @ w), x),
    "while": lambda w, x: lax.while_loop(
        lambda c: (c[0] < 3) & (jnp.sum(c[1] @ w) < 1e9), lambda c: (c[0] + 1, jnp.tanh(c[1] @ w)), (0, x)
    )[1],
    "cond": lambda w, x: lax.cond(x[0, 0] > 0, lambda w, x: x @ w, lambda w, x: x - 1, w, x),
    "switch": lambda w, x: lax.switch(1, [lambda w, x: x, lambda w, x: x @ w, lambda w, x: -x], w, x),
    "transpose": lambda w, x: x @ w.T,
    "cast": lambda w, x: (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32),
    "tied": lambda w, x: (x @ w) @ w.T,
    "custom_jvp": lambda w, x: _scaled(w, x),
    "stop_gradient": lambda w, x: x @ lax.stop_gradient(w),
}


@jax.custom_jvp
def _scaled(w, x):
    return 2.0 * (x @ w)


_scaled.defjvp(lambda primals, tangents: (_scaled(*primals), _scaled(*primals)))


@jax.custom_vjp
def _doubled(w, x):
    return 2.0 * (x @ w)


_doubled.defvjp(lambda w, x: (_doubled(w, x), None), lambda saved, g: (None, None))


@pytest.mark.parametrize("name", LOOPS)
def test_the_kernel_is_kept_through(name):
    told = same(LOOPS[name], low((6, 6)), jnp.abs(leaves.normal(2, 6)), tol=0.03 if name == "cast" else 1e-5)
    assert "two thin products" in told


@pytest.mark.parametrize("leaf", ["Masked", "Quantized int4 grouped", "Sum", "LowRank of Quantized"])
def test_every_leaf_through_a_loop(leaf):
    weight, x = leaves.examples((6, 6))[leaf], leaves.normal(2, 6)
    same(LOOPS["scan constant"], weight, 0.1 * x)


def test_custom_vjp_falls_back_to_dense_and_keeps_its_rule():
    assert "custom_vjp_call: made dense" in same(_doubled, low((6, 6)), leaves.normal(2, 6))


def test_a_weight_carried_by_a_loop_becomes_dense():
    same(lambda w, x: lax.fori_loop(0, 2, lambda i, c: (c[0] * 0.5, c[1] @ c[0]), (w, x))[1], low((6, 6)),
         leaves.normal(2, 6))  # fmt: skip


@pytest.mark.parametrize("name", ["LowRank", "Quantized int4 grouped", "Masked", "Sum"])
def test_layers_sliced_from_a_stack(name):
    stack = jax.tree.map(lambda *v: jnp.stack(v), *[leaves.examples((6, 6))[name]] * 3)
    x = 0.1 * leaves.normal(2, 6)
    told = same(lambda w, x: lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, w)[0], stack, x)
    indexed = same(lambda w, x: lax.fori_loop(0, 3, lambda i, c: jnp.tanh(c @ w[i]), x), stack, x)
    constant = same(lambda w, x: x @ w[1], stack, x)
    if name in ("LowRank", "Sum"):
        assert all("thin" in t for t in (told, indexed, constant))


@pytest.mark.parametrize("name", ["LowRank", "Quantized int4 grouped", "Masked", "Sum"])
@pytest.mark.parametrize("mode", ["clip", "fill", "promise_in_bounds"])
def test_embedding_rows(name, mode):
    table = leaves.examples((12, 10))[name]
    ids = jnp.array([[0, 5], [11, 3]]) if mode == "promise_in_bounds" else jnp.array([[0, 5], [11, 99]])
    ours = sx.compressed(lambda w, i: w.at[i].get(mode=mode))(table, ids)
    plain = sx.dense(table).at[ids].get(mode=mode)
    np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)
    assert "rows looked up" in sx.explain(lambda w, i: w.at[i].get(mode=mode), table, ids)[""][0]


def test_gradients_in_input_and_factors():
    weight, x = leaves.examples((6, 6))["Sum"], leaves.normal(4, 6)
    trainable, fixed = sx.split(weight)
    fn = lambda w, x: jnp.sum(jnp.sin(LOOPS["scan constant"](w, x)[0]))  # noqa: E731
    run = sx.compressed(fn)
    ours = jax.grad(lambda t, x: run(sx.merge(t, fixed), x), argnums=(0, 1))(trainable, x)
    plain = jax.grad(lambda t, x: fn(sx.dense(sx.merge(t, fixed)), x), argnums=(0, 1))(trainable, x)
    assert len(jax.tree.leaves(ours)) == 4  # scale, left, right and x
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * (1 + float(jnp.abs(b).max()))), ours, plain)


def test_the_dense_weight_is_never_made():
    """No array of the dense shape, nor of its transpose, anywhere in the compressed program."""
    weight, x = low((64, 48)), leaves.normal(5, 64)
    fn = lambda w, x: jnp.tanh(x @ w) @ w.T  # noqa: E731
    text = str(jax.make_jaxpr(sx.compressed(fn))(weight, x))
    assert "64,48" not in text
    assert "48,64" not in text


def test_no_retrace_when_only_values_change():
    count = []

    def fn(w, x):
        count.append(1)
        return x @ w

    run = sx.compressed(fn)
    for seed in range(3):
        run(jax.tree.map(lambda v, s=seed: v + s, low((6, 4))), leaves.normal(2, 6, seed=seed))
    assert len(count) == 1
    run(low((6, 4)), leaves.normal(3, 6))
    assert len(count) == 2


def test_leaves_anywhere_and_keyword_arguments():
    fn = lambda x, *, layers: {"out": x @ layers[0]["w"] + layers[1]}  # noqa: E731
    layers = [{"w": low((6, 4))}, jnp.ones(4)]
    x = leaves.normal(2, 6)
    ours = sx.compressed(fn)(x, layers=layers)
    np.testing.assert_allclose(ours["out"], fn(x, layers=sx.dense(layers))["out"], rtol=1e-5, atol=1e-5)


def test_vmap_over_examples_and_over_models():
    weight, x = low((6, 4)), leaves.normal(3, 6)
    run = sx.compressed(lambda w, x: x @ w)
    np.testing.assert_allclose(jax.vmap(lambda x: run(weight, x))(x), x @ sx.dense(weight), rtol=1e-4, atol=1e-5)
    models = jax.tree.map(lambda v: jnp.stack([v, 2 * v]), weight)
    both = jax.vmap(lambda w: run(w, x))(models)
    np.testing.assert_allclose(both[1], 4 * (x @ sx.dense(weight)), rtol=1e-4, atol=1e-5)


def test_sharded_batch_and_sharded_factor():
    """Batch over two devices, columns of the right factor over four: the same numbers."""
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    place = lambda v, *spec: jax.device_put(v, jax.NamedSharding(mesh, jax.P(*spec)))  # noqa: E731
    weight, x = low((6, 8)), leaves.normal(4, 6)
    sharded = sx.LowRank(place(weight.left), place(weight.right, None, "model"))

    def fn(w, x):
        return jnp.tanh(x @ lax.with_sharding_constraint(w, jax.NamedSharding(mesh, jax.P(None, "model"))))

    out = sx.compressed(fn)(sharded, place(x, "data"))
    np.testing.assert_allclose(out, jnp.tanh(x @ sx.dense(weight)), rtol=1e-4, atol=1e-5)
    assert "two thin products" in sx.explain(fn, weight, x)[""][0]


def test_inside_shard_map_the_weight_is_dense_and_right():
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
    fn = jax.shard_map(lambda w, x: x @ w, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P("data"))
    assert "shard_map: made dense" in same(fn, low((6, 4)), leaves.normal(4, 6))
