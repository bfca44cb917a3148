"""Residual networks for small images: the general network, ResNet-18 and PreAct-ResNet-18."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp

from spartax.models import blocks, layers
from spartax.records import Array


class ResNet(nn.Module):
    """A 3x3 stem, groups of residual blocks (the later ones halve the resolution), global mean, linear layer.

    See He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385).

    Attributes:
      widths: channels of each group.
      depths: blocks in each group.
      stem: channels of the stem.
      block: `block(width, stride, name=...)` makes a block: `BasicBlock`, `PreActBlock` or a partial of one.
      preact: whether normalization and ReLU come after the last group (blocks that begin with them) or after the stem.
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.
    """

    widths: Sequence[int]
    depths: Sequence[int]
    stem: int
    block: Callable[..., nn.Module] = blocks.BasicBlock
    preact: bool = False
    classes: int = 10
    mean: Sequence[float] = layers.CIFAR10_MEAN
    std: Sequence[float] = layers.CIFAR10_STD

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Images float [B, H, W, C] in [0, 1] -> logits [B, classes]; `train` uses batch statistics."""
        x = layers.normalize(x, self.mean, self.std)
        x = layers.conv(self.stem, 3, padding=1, name="conv1")(x)
        if not self.preact:
            x = nn.relu(layers.batch_norm(train, "bn1")(x))
        for group, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for index in range(depth):
                stride = 2 if group > 0 and index == 0 else 1
                x = self.block(width, stride, name=f"layer{group + 1}_{index}")(x, train)
        if self.preact:
            x = nn.relu(layers.batch_norm(train, "bn")(x))
        return nn.Dense(self.classes, name="linear")(jnp.mean(x, axis=(1, 2)))


def resnet18(
    classes: int = 10, *, mean: Sequence[float] = layers.CIFAR10_MEAN, std: Sequence[float] = layers.CIFAR10_STD
) -> ResNet:
    """ResNet-18 with a CIFAR stem (3x3, stride 1, no pooling); 11,173,962 parameters for 10 classes.

    Args:
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.

    Returns:
      The module; its `batch_stats` change in training. See He et al. (arXiv:1512.03385).
    """
    return ResNet((64, 128, 256, 512), (2, 2, 2, 2), 64, classes=classes, mean=tuple(mean), std=tuple(std))


def preact_resnet18(
    classes: int = 10, *, mean: Sequence[float] = layers.CIFAR10_MEAN, std: Sequence[float] = layers.CIFAR10_STD
) -> ResNet:
    """PreAct-ResNet-18 with a CIFAR stem and a last normalization; 11,172,170 parameters for 10 classes.

    Args:
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.

    Returns:
      The module; its `batch_stats` change in training. See He et al. (arXiv:1603.05027).
    """
    widths, block = (64, 128, 256, 512), blocks.PreActBlock
    return ResNet(widths, (2, 2, 2, 2), 64, block, preact=True, classes=classes, mean=tuple(mean), std=tuple(std))
