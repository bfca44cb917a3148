"""The thin CIFAR residual networks: ResNet-8, 20, 32 and 56."""

import functools
from collections.abc import Sequence
from typing import Any

from spartax import checks
from spartax.models import blocks, layers
from spartax.models.resnet import ResNet


def resnet_cifar(
    depth: int,
    classes: int = 10,
    *,
    shortcut: str = "A",
    mean: Sequence[float] = layers.CIFAR10_MEAN,
    std: Sequence[float] = layers.CIFAR10_STD,
) -> ResNet:
    """The CIFAR ResNet of `depth = 6 n + 2` layers: three groups of `n` basic blocks, 16, 32 and 64 channels wide.

    See He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), section 4.2.

    Args:
      depth: number of weighted layers: 8, 14, 20, 32, 44, 56, 110 ...
      classes: number of logits.
      shortcut: `"A"` (zero-padded channels, no parameters; the paper's choice) or `"B"` (1x1 convolutions).
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.

    Returns:
      The module; its `batch_stats` change in training.

    Raises:
      ValueError: `depth` is not `6 n + 2` with `n >= 1`, or `shortcut` is unknown.
    """
    checks.one_of("shortcut", shortcut, ("A", "B"))
    checks.positive_int("depth", depth, least=8)
    if depth % 6 != 2:
        raise ValueError(f"depth must be 6 n + 2 (8, 14, 20, 26, 32, ...); got {depth!r}.")
    block = functools.partial(blocks.BasicBlock, shortcut=shortcut)
    n = (depth - 2) // 6
    return ResNet((16, 32, 64), (n, n, n), 16, block, classes=classes, mean=tuple(mean), std=tuple(std))


def resnet8(classes: int = 10, **options: Any) -> ResNet:
    """`resnet_cifar(8, ...)`: 75,290 parameters for 10 classes with shortcut A."""
    return resnet_cifar(8, classes, **options)


def resnet20(classes: int = 10, **options: Any) -> ResNet:
    """`resnet_cifar(20, ...)`: 269,722 parameters for 10 classes with shortcut A."""
    return resnet_cifar(20, classes, **options)


def resnet32(classes: int = 10, **options: Any) -> ResNet:
    """`resnet_cifar(32, ...)`: 464,154 parameters for 10 classes with shortcut A."""
    return resnet_cifar(32, classes, **options)


def resnet56(classes: int = 10, **options: Any) -> ResNet:
    """`resnet_cifar(56, ...)`: 853,018 parameters for 10 classes with shortcut A."""
    return resnet_cifar(56, classes, **options)
