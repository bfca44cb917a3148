"""Statistics of inputs that are zero in every batch tell nothing: whoever reads them says so and names the weight."""

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
