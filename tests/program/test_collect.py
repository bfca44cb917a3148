"""`collect` gives the statistics that a slow NumPy pass over the same rows gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import spartax as sx
from tests import leaves

pytestmark = pytest.mark.core
NUMBERS = ("NHWC", "HWIO", "NHWC")
PARAMS = {"conv": leaves.normal(3, 3, 2, 4, seed=1), "dense": leaves.normal(10, 36, seed=2)}
X = leaves.normal(6, 5, 5, 2, seed=3)
Y = jnp.array([0, 3, 9, 1, 3, 7])


def network(p, x):
    x = lax.conv_general_dilated(x, p["conv"], (2, 2), "SAME", dimension_numbers=NUMBERS)
    return jax.nn.relu(x).reshape(x.shape[0], -1) @ p["dense"].T


def cross_entropy(logits, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0]


def patches(x, size, stride):
    """Rows of a SAME convolution on 5 x 5 images with stride 2, features in the order (h, w, channel)."""
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    starts = range(0, padded.shape[1] - size + 1, stride)
    return np.stack([padded[:, i : i + size, j : j + size].reshape(len(x), -1) for i in starts for j in starts], 1)


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_moments_and_magnitudes_of_patches_and_of_a_transposed_kernel():
    found = sx.collect(network, PARAMS, [X[:4], X[4:]], ("moments", "magnitudes"))
    rows = patches(X, 3, 2).reshape(-1, 18)
    close(found["moments"]["conv"], rows.T @ rows / len(rows))
    close(found["magnitudes"]["conv"], np.abs(rows).mean(0))
    hidden = np.maximum(rows @ np.asarray(PARAMS["conv"]).reshape(18, 4), 0).reshape(6, 36)
    close(found["moments"]["dense"], hidden.T @ hidden / 6)


def test_signals_are_sums_over_positions_of_gradients_of_single_examples():
    found = sx.collect(network, PARAMS, [(X[:2], Y[:2]), (X[2:], Y[2:])], ("signals",), loss=cross_entropy)["signals"]
    logits = np.asarray(network(PARAMS, X))
    errors = np.asarray(jax.nn.softmax(logits)) - np.eye(10)[np.asarray(Y)]
    close(found["dense"], errors.T @ errors / 6)
    before = patches(X, 3, 2) @ np.asarray(PARAMS["conv"]).reshape(18, 4)
    g = (errors @ np.asarray(PARAMS["dense"])).reshape(6, 9, 4) * (before > 0)
    close(found["conv"], np.einsum("bso,bsp->op", g, g) / 6)


def test_the_mean_loss_and_the_loss_of_each_example_give_the_same_signals():
    each, mean = (
        sx.collect(network, PARAMS, [(X, Y)], ("signals",), loss=loss, paths=["dense"])["signals"]["dense"]
        for loss in (cross_entropy, lambda logits, y: jnp.mean(cross_entropy(logits, y)))
    )
    close(each, np.asarray(mean))


def test_every_layer_of_a_scanned_stack_has_its_own_moments_also_under_remat():
    w, x = 0.3 * leaves.normal(3, 4, 4, seed=4), leaves.normal(7, 4, seed=5)

    def scanned(w, x):
        return lax.scan(jax.checkpoint(lambda c, w: (jnp.tanh(c @ w), None)), x, w)[0]

    found = sx.collect(scanned, w, [x])["moments"][""]
    assert found.shape == (3, 4, 4)
    c = np.asarray(x)
    for layer in range(3):
        close(found[layer], c.T @ c / 7)
        c = np.tanh(c @ np.asarray(w[layer]))


def test_layers_taken_out_of_a_stack_by_index():
    w, x = leaves.normal(2, 4, 4, seed=4), leaves.normal(7, 4, seed=5)
    found = sx.collect(lambda w, x: lax.fori_loop(0, 2, lambda i, c: jnp.tanh(c @ w[i]), x), w, [x])["moments"][""]
    c = np.asarray(x)
    close(found[0], c.T @ c / 7)
    c = np.tanh(c @ np.asarray(w[0]))
    close(found[1], c.T @ c / 7)


def test_grouped_convolution_has_moments_for_each_group():
    def grouped(w, x):
        return lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=NUMBERS, feature_group_count=2)

    x = leaves.normal(3, 2, 2, 4, seed=6)
    found = sx.collect(grouped, leaves.normal(2, 2, 2, 6, seed=7), [x])["moments"][""]
    rows = np.asarray(x).reshape(3, 4, 2, 2).transpose(2, 0, 1, 3).reshape(2, 3, 8)  # [group, example, (h, w, channel)]
    close(found, np.einsum("gni,gnj->gij", rows, rows) / 3)


def test_heads_as_a_batch_axis_of_the_weight():
    """x [N, heads, d] times w [heads, d, e], the heads matched."""
    x, w = leaves.normal(5, 2, 3, seed=8), leaves.normal(2, 3, 4, seed=9)
    found = sx.collect(lambda w, x: jnp.einsum("nhd,hde->nhe", x, w), w, [x])["moments"][""]
    close(found, np.einsum("nhi,nhj->hij", x, x) / 5)


def test_a_compressed_weight_is_used_as_it_is():
    params = {**PARAMS, "conv": leaves.masked((3, 3, 2, 4))}
    ours, expected = (sx.collect(network, p, [X])["moments"]["dense"] for p in (params, sx.dense(params)))
    close(ours, np.asarray(expected))


def test_sharded_batches_give_the_result_of_one_device():
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    x = jax.device_put(X, NamedSharding(mesh, P("data")))
    close(
        sx.collect(network, PARAMS, [x])["moments"]["conv"],
        np.asarray(sx.collect(network, PARAMS, [X])["moments"]["conv"]),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"needs": ("moment",)}, "needs must be one of .* got 'moment'. Did you mean 'moments'"),
        ({"needs": ("signals",)}, "loss is needed to collect signals"),
        ({"needs": ("signals",), "loss": cross_entropy}, "batches must be .x, y. to collect signals"),
        ({"paths": ["convv"]}, "path must be one of .*Did you mean 'conv'"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        sx.collect(network, PARAMS, [X], **options)


def test_empty_batches_values_that_are_not_finite_and_places_out_of_reach():
    with pytest.raises(ValueError, match="batches is empty"):
        sx.collect(network, PARAMS, [])
    with pytest.raises(ValueError, match="the moments of conv holds NaN"):
        sx.collect(network, PARAMS, [X.at[0, 0, 0, 0].set(jnp.nan)])
    hidden = jax.custom_vjp(lambda w, x: x @ w)
    hidden.defvjp(lambda w, x: (x @ w, None), lambda _, g: (None, None))
    with pytest.raises(ValueError, match=r"never contracted|custom_vjp"):
        sx.collect(hidden, leaves.normal(3, 3), [leaves.normal(2, 3)], paths=[""])


IDS = jnp.array([[3, 0, 3], [1, 3, -2], [0, 3, 5], [9, 3, 0]])
TABLE = {"table": leaves.normal(7, 4), "head": leaves.normal(4, 3)}


def embedded(params, ids):
    return jnp.mean(jnp.take(params["table"], ids, axis=0), axis=1) @ params["head"]


def test_lookups_are_products_with_one_hot_vectors():
    """Negative numbers count from the end; those outside the table (here 9) meet no row, or the last one."""
    needs = ("moments", "means", "magnitudes", "peaks")
    rows = lambda params, ids: jax.nn.one_hot(ids % 7, 7) @ params["table"]  # noqa: E731
    multiplied = lambda params, ids: jnp.mean(rows(params, ids), axis=1) @ params["head"]  # noqa: E731
    inside = IDS[:3]
    ours = sx.collect(embedded, TABLE, [inside[:2], inside[2:]], needs, paths=["table", "head"])
    expected = sx.collect(multiplied, TABLE, [inside[:2], inside[2:]], needs, paths=["table", "head"])
    for need in needs:
        close(ours[need]["table"], expected[need]["table"])
        close(ours[need]["head"], expected[need]["head"])
    assert not np.allclose(ours["means"]["table"], 1 / 7)
    within = lambda mode: sx.collect(  # noqa: E731
        lambda params, ids: params["table"].at[ids].get(mode=mode), TABLE, [IDS], ("means",), paths=["table"]
    )["means"]["table"]
    close(within("clip"), np.array([3, 1, 0, 5, 0, 2, 1]) / 12)
    close(within("drop"), np.array([3, 1, 0, 5, 0, 2, 0]) / 11)


def test_what_lookups_do_not_say():
    """A table that is contracted as well, along its other axis, is counted there alone."""
    tied = lambda params, ids: embedded(params | {"head": params["table"].T}, ids)  # noqa: E731
    hidden = np.asarray(jnp.mean(TABLE["table"][IDS[:3]], axis=1))
    close(sx.collect(tied, TABLE, [IDS[:3]], paths=["table"])["moments"]["table"], hidden.T @ hidden / 3)
    assert "table" not in sx.collect(embedded, TABLE, [IDS[:3]])["moments"]
    with pytest.raises(ValueError, match="table: its rows are looked up, and a lookup has no ranges; leave it out"):
        sx.collect(embedded, TABLE, [IDS], ("ranges", "histograms", "means"), paths=["table"])
    large = {**TABLE, "table": jnp.zeros((8193, 4))}
    with pytest.raises(ValueError, match=r"table: the moments of lookups in 8193 rows .* at most 8192"):
        sx.collect(embedded, large, [IDS], paths=["table"])
    columns = lambda params, ids: params["table"][:, ids]  # noqa: E731
    with pytest.raises(ValueError, match="table: no row was seen"):
        sx.collect(columns, TABLE, [IDS % 4], paths=["table"])


def test_ranges_and_histograms_of_inputs_over_batches():
    found = sx.collect(network, PARAMS, [X[:4], X[4:]], ("ranges", "histograms"))
    hidden = np.maximum(patches(X, 3, 2).reshape(-1, 18) @ np.asarray(PARAMS["conv"]).reshape(18, 4), 0)
    for path, values in (("conv", np.asarray(X)), ("dense", hidden)):
        low, high = min(values.min(), 0), values.max()
        np.testing.assert_allclose(found["ranges"][path], [low, high], rtol=1e-5)
        counts, top = np.asarray(found["histograms"][path]), max(-low, high)
        assert counts.sum() == values.size  # a pixel in several patches counts once
        coarse = np.histogram(values, 8, (-top, top))[0]
        np.testing.assert_allclose(counts.reshape(8, -1).sum(1), coarse, atol=1)


def test_every_layer_of_a_stack_has_its_own_range():
    w, x = 0.3 * leaves.normal(3, 4, 4, seed=4), leaves.normal(7, 4, seed=5)
    scanned = lambda w, x: lax.scan(jax.checkpoint(lambda c, w: (c @ w, None)), x, w)[0]  # noqa: E731
    found = sx.collect(scanned, w, [x], ("ranges", "histograms"))
    c = np.asarray(x)
    for layer in range(3):
        np.testing.assert_allclose(found["ranges"][""][layer], [c.min(), c.max()], rtol=1e-5)
        assert found["histograms"][""][layer].sum() == c.size
        c = c @ np.asarray(w[layer])


def test_the_range_of_a_weight_that_is_used_twice_is_not_guessed():
    with pytest.raises(ValueError, match="used 2 times by the program"):
        sx.collect(lambda w, x: (x @ w) @ w, leaves.normal(3, 3), [leaves.normal(2, 3)], ("ranges",))


def test_a_weight_that_is_reshaped_or_cut_along_its_outputs_has_the_moments_of_its_inputs():
    w, x = leaves.normal(12, 5), leaves.normal(8, 12, seed=1)
    programs = {
        "through one axis": lambda w, x: x @ w.reshape(60).reshape(12, 5),
        "through three": lambda w, x: x @ w.reshape(3, 4, 5).reshape(12, 5),
        "inputs in two axes": lambda w, x: jnp.tensordot(x.reshape(-1, 3, 4), w.reshape(3, 4, 5), 2),
        "outputs cut": lambda w, x: jnp.concatenate([x @ part for part in jnp.split(w, [2], axis=1)], 1),
        "outputs permuted": lambda w, x: x @ w.reshape(12, 5, 1).transpose(0, 2, 1).reshape(12, 5),
    }
    for name, program in programs.items():
        np.testing.assert_allclose(program(w, x), x @ w, atol=1e-5, err_msg=name)
        found = sx.collect(program, w, [x], ("moments", "means"))
        close(found["moments"][""], np.asarray(x.T @ x) / 8)
        close(found["means"][""], np.asarray(x).mean(0))


def test_rows_that_the_program_cuts_or_permutes_are_refused_by_path():
    """Their statistics would come in another order than the rows of the weight."""
    w, x = leaves.normal(12, 5), leaves.normal(8, 12, seed=1)
    permuted = lambda w: w.reshape(6, 2, 5).transpose(1, 0, 2).reshape(12, 5)  # noqa: E731
    programs = (
        lambda p, x: x @ permuted(p["w"]),
        lambda p, x: jnp.tensordot(x.reshape(-1, 2, 6), p["w"].reshape(6, 2, 5), ((1, 2), (1, 0))),
        lambda p, x: x[:, :6] @ p["w"][:6],
        lambda p, x: x[:, :6] @ lax.dynamic_slice_in_dim(p["w"], 0, 6),
        lambda p, x: x[:, ::2] @ p["w"][::2],
    )
    for program in programs:
        assert sx.inspect(program, {"w": w}, x)["w"].layout.inputs == (0,)
        with pytest.raises(
            ValueError, match=r"w: no row was seen, because .* its rows sliced or permuted by the program"
        ):
            sx.collect(program, {"w": w}, [x], ("moments",))
