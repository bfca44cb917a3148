"""VGG-16 with batch normalization, in the version for 32x32 images."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from spartax.models import layers
from spartax.records import Array


class VGG(nn.Module):
    """Stages of 3x3 convolutions with normalization and ReLU, each closed by 2x2 max-pooling; mean; one linear layer.

    See Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (arXiv:1409.1556).

    Attributes:
      stages: channels of each convolution, stage by stage.
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.
    """

    stages: Sequence[Sequence[int]]
    classes: int = 10
    mean: Sequence[float] = layers.CIFAR10_MEAN
    std: Sequence[float] = layers.CIFAR10_STD

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Images float [B, H, W, C] in [0, 1] -> logits [B, classes]; `train` uses batch statistics."""
        least = 2 ** len(self.stages)
        if min(x.shape[1:3]) < least:
            raise ValueError(f"x must be images of at least {least}x{least} pixels; got shape {x.shape}.")
        x = layers.normalize(x, self.mean, self.std)
        for stage, widths in enumerate(self.stages, start=1):
            for index, width in enumerate(widths, start=1):
                x = layers.conv(width, 3, padding=1, name=f"conv{stage}_{index}")(x)
                x = nn.relu(layers.batch_norm(train, f"bn{stage}_{index}")(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        return nn.Dense(self.classes, name="linear")(jnp.mean(x, axis=(1, 2)))


def vgg16_bn(
    classes: int = 10, *, mean: Sequence[float] = layers.CIFAR10_MEAN, std: Sequence[float] = layers.CIFAR10_STD
) -> VGG:
    """VGG-16-BN with one linear layer, as pruning papers use it on CIFAR; 14,724,042 parameters for 10 classes.

    Convolutions have no bias, since the normalization after them removes it.

    Args:
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.

    Returns:
      The module, for images of at least 32x32 pixels; its `batch_stats` change in training.
    """
    stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    return VGG(stages, classes, tuple(mean), tuple(std))
