"""Statistics of inputs that are zero in every batch tell nothing: whoever reads them says so and names the weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import quantize
from tests import leaves

PARAMS = {"first": leaves.normal(16, 8, seed=1), "second": leaves.normal(8, 6, seed=2)}
INT3 = quantize.integer(3)
READERS = {
    "awq": quantize.awq(INT3),
    "smooth": quantize.smooth(),
    "lsq": quantize.lsq(4, activations=4),
    "correlation": quantize.mixed([INT3], quantize.correlation(), budget=INT3),
}


@pytest.mark.parametrize("name", READERS)
def test_inputs_of_zeros_are_refused_and_single_zeros_are_not(name):
    network = lambda p, x: (x @ p["first"]) @ p["second"]  # noqa: E731
    with pytest.raises(ValueError, match=f"{name}: the input of (first|second) is zero everywhere"):
        sx.compress(network, PARAMS, READERS[name], batches=[jnp.zeros((4, 16))])
    alive = jnp.asarray(np.eye(4, 16), jnp.float32)
    assert set(sx.compress(network, PARAMS, READERS[name], batches=[alive]).info) == set(PARAMS)


STACKED = {
    **{name: READERS[name] for name in ("lsq", "correlation")},
    "gptq": quantize.quantize(INT3, rounding=quantize.gptq()),
    "adaround": quantize.quantize(INT3, rounding=quantize.adaround(2)),
}
STATIC = quantize.activations(observer=quantize.min_max())


@pytest.mark.parametrize("name", [*STACKED, "activations"])
def test_a_layer_of_a_stack_without_input_is_named(name):
    """The first of three layers gives zeros alone, so that nothing is known of the inputs of the others."""
    stack = {"w": leaves.normal(3, 8, 8).at[0].set(-1.0)}
    network = lambda p, x: jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, p["w"])[0]  # noqa: E731
    told = f"{name}: the input of w of layer 1 of the stack is zero everywhere"
    told = "w of layer 1 of the stack: calibration saw no input but zeros" if name == "activations" else told
    with pytest.raises(ValueError, match=told):
        sx.compress(network, stack, STACKED.get(name, STATIC), batches=[jnp.ones((4, 8))])


def test_a_rounding_that_ends_at_the_nearest_codes_says_so_unless_they_are_the_best():
    """One wild step of AdaRound loses more than nearest on every output; GPTQ would change one output here, and lose.

    Of white inputs its codes are the nearest.
    """

    def drawn(seed):
        rng = np.random.default_rng(seed)
        w, x = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((8, 4), (64, 8)))
        return {"w": w}, x

    def run(rounding, params, x):
        method = quantize.quantize(INT3, rounding=rounding)
        return sx.compress(lambda p, x: x @ p["w"], params, method, batches=[x]).info["w"]["steps"][0]

    for rounding, seed, outputs in ((quantize.adaround(1, lr=1.0), 0, 4), (quantize.gptq(), 4, 1)):
        with pytest.warns(UserWarning, match=f": w keeps the nearest codes for {outputs} of the {outputs} outputs"):
            found = run(rounding, *drawn(seed))
        assert (found["moved"], found["nearest_outputs"]) == (0, outputs)
    white = run(quantize.gptq(), drawn(0)[0], 8**0.5 * jnp.eye(8))
    assert (white["moved"], white["nearest_outputs"]) == (0, 0)


@pytest.mark.parametrize(
    "method", [quantize.quantize(INT3), quantize.lsq(3), quantize.qfx(4)], ids=["int3", "lsq", "qfx"]
)
@pytest.mark.parametrize("size", [2.0**-100, 2.0**100])
def test_relative_errors_are_those_of_any_scale(size, method):
    """Squares of such numbers are beyond float32."""
    w = leaves.normal(32, 8)
    run = lambda w: sx.compress(  # noqa: E731
        lambda p, x: x @ p["w"], {"w": w}, method, batches=[jnp.ones((1, 32))]
    ).info["w"]["steps"][0]["relative_error"]
    np.testing.assert_allclose(run(size * w), run(w), rtol=1e-4)
    assert 0.05 < run(w) < 0.5
