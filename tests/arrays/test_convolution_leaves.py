"""Kernels made of thin ones convolve as their dense form does, whatever the numbers of the convolution."""

import jax
import numpy as np
import pytest
from jax import lax

import spartax as sx
from tests import leaves

SHAPE = (3, 3, 8, 6)
WAYS = {
    "plain": ((1, 1), "SAME", {}, ("NHWC", "HWIO", "NHWC")),
    "strides and uneven padding": ((2, 1), ((0, 2), (1, 1)), {}, ("NHWC", "HWIO", "NHWC")),
    "dilated both ways": (
        (1, 1),
        ((0, 0), (1, 0)),
        {"lhs_dilation": (1, 2), "rhs_dilation": (2, 1)},
        ("NHWC", "HWIO", "NHWC"),
    ),
    "channels first": ((2, 2), "SAME", {}, ("NCHW", "HWIO", "NCHW")),
    "turned output": ((1, 2), "SAME", {}, ("NHWC", "HWIO", "NCHW")),
    "kernel outputs first": ((1, 1), "SAME", {}, ("NHWC", "OIHW", "NHWC")),
}


def kernels():
    small = leaves.convolutional(SHAPE)
    return {**small, "BlockDiagonal": sx.BlockDiagonal(leaves.normal(3, 3, 4, 6), 2)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", kernels())
def test_equals_the_dense_convolution(name, way):
    strides, padding, more, numbers = WAYS[way]
    leaf = kernels()[name]
    x = leaves.normal(2, 9, 8, 8, seed=1)
    x = x.transpose(0, 3, 1, 2) if numbers[0] == "NCHW" else x

    def network(kernel, x):
        kernel = kernel.transpose(3, 2, 0, 1) if numbers[1] == "OIHW" else kernel
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, **more)

    whole = np.asarray(jax.jit(network)(sx.dense(leaf), x))
    np.testing.assert_allclose(sx.compressed(network)(leaf, x), whole, atol=2e-5 * np.abs(whole).max())
    if not (name == "BlockDiagonal" and numbers[1] == "OIHW"):  # it has no transpose of its own
        assert name.split()[0] in sx.explain(network, leaf, x)[""][0]
        assert "made dense" not in sx.explain(network, leaf, x)[""][0]


def test_costs_are_those_of_the_thin_convolutions():
    """8 x 8 images to 4 x 4, 8 to 6 channels, ranks 2 and 3: 64 x 8 x 2 + 16 x 9 x 2 x 3 + 16 x 3 x 6."""

    def network(kernel, x):
        return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x = leaves.normal(5, 8, 8, 8)
    macs = {name: sx.inspect(network, leaf, x)[""].macs_now for name, leaf in kernels().items()}
    assert macs["Tucker"] == 64 * 8 * 2 + 16 * 9 * 6 + 16 * 18
    assert macs["Tucker of Depthwise"] == 64 * 8 * 3 + 16 * 6 * 3 + 16 * 18
    assert macs["Separable"] == 4 * 8 * 3 * 8 * 2 + 16 * 3 * 2 * 6
    assert macs["BlockDiagonal"] == 16 * 9 * 8 * 6 // 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["Tucker", "Tucker of Depthwise"])
def test_groups_share_the_first_factors_of_tucker(name, way):
    strides, padding, more, numbers = WAYS[way]
    leaf = leaves.convolutional((3, 3, 8, 12))[name]
    x = leaves.normal(2, 9, 8, 16, seed=1)
    x = x.transpose(0, 3, 1, 2) if numbers[0] == "NCHW" else x

    def network(kernel, x):
        kernel = kernel.transpose(3, 2, 0, 1) if numbers[1] == "OIHW" else kernel
        return lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=numbers, feature_group_count=2, **more
        )

    whole = np.asarray(jax.jit(network)(sx.dense(leaf), x))
    found = jax.jit(sx.compressed(network))(leaf, x)
    np.testing.assert_allclose(found, whole, atol=2e-5 * np.abs(whole).max())
    assert "Tucker: 1x1, small convolution, 1x1" in sx.explain(network, leaf, x)[""][0]


def test_costs_of_tucker_in_groups():
    """8 x 8 images to 4 x 4, two groups of 8 to 6 channels: the first two of each group, the last of all outputs."""

    def network(kernel, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers, feature_group_count=2)

    leaf = leaves.convolutional((3, 3, 8, 12))["Tucker"]
    found = sx.inspect(network, leaf, leaves.normal(5, 8, 8, 16))[""].macs_now
    assert found == 2 * (64 * 8 * 2 + 16 * 9 * 2 * 3) + 16 * 3 * 12


def test_a_grouped_convolution_makes_separable_kernels_dense():
    def network(kernel, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=2)

    leaf, x = leaves.convolutional((3, 3, 4, 6))["Separable"], leaves.normal(2, 6, 6, 8)
    whole = network(sx.dense(leaf), x)
    np.testing.assert_allclose(sx.compressed(network)(leaf, x), whole, atol=1e-4)
    assert "dense (Separable: not an ungrouped convolution" in sx.explain(network, leaf, x)[""][0]
