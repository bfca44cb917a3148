"""HASB: the probabilities of widths by hand, as they come out of draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import quantize

TRACES = {"flat": 1.0, "even": 2.0, "steep": 9.0}  # their mean is 4


def test_a_steep_layer_is_drawn_wide_in_proportion_to_the_bits_as_training_goes_on():
    """8, 6, 4, 2 of 20 in four of five cases at the end, in two of five after the first of two steps."""
    draw = jax.jit(jax.vmap(quantize.hasb(TRACES, 2, share=0.8), (0, None)))
    for step, steep in ((1, [0.37, 0.29, 0.21, 0.13]), (0, [0.31, 0.27, 0.23, 0.19])):
        drawn = draw(jax.random.split(jax.random.key(0), 4000), jnp.int32(step))
        found = {path: [np.mean(bits == width) for width in (8, 6, 4, 2)] for path, bits in drawn.items()}
        np.testing.assert_allclose(found["flat"], [0.25] * 4, atol=0.025)
        np.testing.assert_allclose(found["even"], [0.25] * 4, atol=0.025)
        np.testing.assert_allclose(found["steep"], steep, atol=0.025)


def test_the_layers_of_one_draw_are_independent_and_a_key_says_what_is_drawn():
    draw = quantize.hasb({"a": 1.0, "b": 1.0}, 10, (8, 2))
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = jax.vmap(draw, (0, None))(keys, jnp.int32(9))
    both = float(np.mean((drawn["a"] == 8) & (drawn["b"] == 8)))
    assert abs(both - 0.8 * 0.8) < 0.03  # traces that are alike are all at least the mean
    again = draw(keys[7], jnp.int32(9))
    assert [int(again["a"]), int(again["b"])] == [int(drawn["a"][7]), int(drawn["b"][7])]


def test_bad_arguments():
    for make, message in (
        (lambda: quantize.hasb({}, 10), "number of traces"),
        (lambda: quantize.hasb({"a": np.nan}, 10), "traces holds NaN"),
        (lambda: quantize.hasb(TRACES, 0), "steps must be an integer"),
        (lambda: quantize.hasb(TRACES, 10, (8, 1)), "widths must be one of"),
        (lambda: quantize.hasb(TRACES, 10, share=1.5), "share must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
