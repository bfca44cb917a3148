"""Straight through rounded activations: the values stay, the gradient is that of activations nobody rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import spartax as sx
from spartax import attacks, measure, quantize
from spartax.arrays import FakeInputs, QuantizedInputs, Sign, rounds_inputs, straight_through_inputs

pytestmark = pytest.mark.core
RNG = np.random.default_rng(0)
W, X = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((6, 3), (4, 6)))


def test_a_clipped_static_scale_passes_the_whole_gradient():
    leaf = QuantizedInputs(W, jnp.float32(0.1), jnp.int8(1), 3, False)
    (through,) = straight_through_inputs((leaf,))
    np.testing.assert_allclose(sx.matmul(through, X), sx.matmul(leaf, X), rtol=1e-6)
    own, passed = (jax.grad(lambda x: jnp.sum(sx.matmul(w, x)))(X) for w in (leaf, through))  # noqa: B023
    np.testing.assert_allclose(passed, np.broadcast_to(np.sum(W, 1), X.shape), rtol=1e-6)
    steps = np.round(X / 0.1) + 1
    np.testing.assert_allclose(own, np.where((steps < -4) | (steps > 3), 0, passed), rtol=1e-6)


def test_what_rounds_no_activation_or_clips_none_keeps_its_structure():
    dynamic = {"a": QuantizedInputs(W), "b": W}
    assert jax.tree.structure(straight_through_inputs(dynamic)) == jax.tree.structure(dynamic)
    assert rounds_inputs(dynamic)
    assert not rounds_inputs({"b": W})


def network(params, x):
    hidden = (x.reshape(len(x), -1) - 0.5) @ params["first"]
    return hidden @ params["last"]


def test_a_binary_network_that_plain_pgd_cannot_break_is_broken_straight_through_the_signs():
    """What meets the last layer lies outside the window of the estimator, so that its own gradients are zero."""
    first = jnp.asarray(RNG.normal(size=(48, 64)) * 1e6, jnp.float32)
    params = {"first": first, "last": jnp.asarray(RNG.normal(size=(64, 4)), jnp.float32)}
    x = RNG.uniform(0.3, 0.7, (24, 4, 4, 3)).astype(np.float32)
    transform = quantize.reste(10, activations=True)
    binary = sx.compress(network, params, transform, batches=[x], rule=lambda path, w: path == "last").params
    assert isinstance(binary["last"], FakeInputs)
    assert isinstance(binary["last"].quantizer, Sign)
    apply = sx.compressed(network)
    own, through = Partial(apply, binary), Partial(apply, straight_through_inputs(binary))
    y = np.argmax(own(x), axis=1).astype(np.int32)
    np.testing.assert_array_equal(own(x), through(x))
    suite, key = {"pgd": attacks.pgd(0.1, steps=20, random_start=False)}, jax.random.key(0)
    plain = measure.robustness(suite, own, x, y, key)
    assert plain.worst.mean() == 1.0
    found = measure.robustness(suite, own, x, y, key, routes={"own": own, "straight-through": through})
    assert found.worst.mean() < 0.2
    assert found.masking > 0.8
