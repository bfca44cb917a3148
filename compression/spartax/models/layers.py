"""What several models share: input normalization and convolutions padded as PyTorch pads them."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from spartax.records import ApplyFn, Array, Params

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2471, 0.2435, 0.2616)


def normalize(x: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Normalize images per channel: `(x - mean) / std`.

    Args:
      x: images, float [B, ..., C] in [0, 1].
      mean: one number for all channels or one per channel, in pixel units of [0, 1].
      std: as `mean`.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      ValueError: when `mean` or `std` has neither one entry nor one per channel.
    """
    channels = x.shape[-1]
    for name, value in (("mean", mean), ("std", std)):
        if len(value) not in (1, channels):
            raise ValueError(
                f"{name} must have one entry, or one for each of {channels} channels; got {tuple(value)!r}."
            )
    row = (1,) * (x.ndim - 1) + (-1,)
    return (x - jnp.asarray(mean, x.dtype).reshape(row)) / jnp.asarray(std, x.dtype).reshape(row)


def conv(features: int, size: int, stride: int = 1, *, padding: int = 0, bias: bool = False, name: str) -> nn.Conv:
    """A square convolution `[size, size, in, features]` with `padding` zeros on each side of both axes.

    Flax's `"SAME"` pads a strided convolution on one side only; PyTorch, and so every published weight, on both.
    """
    return nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding=padding,
        use_bias=bias,
        kernel_init=nn.initializers.he_normal(),
        name=name,
    )


def batch_norm(train: bool, name: str) -> nn.BatchNorm:
    """Batch normalization as in PyTorch: epsilon 1e-5, running statistics that keep 0.9 a step."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name)


def flatten(x: Array) -> Array:
    """`[B, ...] -> [B, D]`, row-major: `H, W, C` for feature maps."""
    return x.reshape((x.shape[0], -1))


def eval_apply(module: nn.Module) -> ApplyFn:
    """The module as a pure function `apply(variables, x) -> logits [B, K]` in evaluation mode.

    Args:
      module: any model of this package.

    Returns:
      `apply`, where `variables` is the whole dictionary of `module.init` (`params` and, with batch normalization,
      `batch_stats`) and `x` is float [B, H, W, C] in [0, 1].
    """

    def apply(variables: Params, x: Array) -> Array:
        logits: Any = module.apply(variables, x, train=False)
        return logits

    return apply
