"""A small convolutional network that trains in seconds on 8x8 digits and in minutes on 28x28 or 32x32 images."""

from collections.abc import Sequence

import flax.linen as nn

from spartax.models import layers
from spartax.records import Array


class CNN(nn.Module):
    """3x3 convolutions with ReLU (every one after the first halves the resolution), then two linear layers.

    40,394 parameters on 8x8x1 digits, 224,714 on 28x28x1 and 286,442 on 32x32x3 images. There is no pooling and no
    normalization, so that its gradients, and with them attacks, are cheap and exact.

    Attributes:
      widths: channels of each convolution.
      hidden: units of the first linear layer.
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.
    """

    widths: Sequence[int] = (16, 32, 64)
    hidden: int = 64
    classes: int = 10
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Images float [B, H, W, C] in [0, 1] -> logits [B, classes]; `train` changes nothing."""
        del train
        x = layers.normalize(x, self.mean, self.std)
        for index, width in enumerate(self.widths, start=1):
            stride = 1 if index == 1 else 2
            x = nn.relu(layers.conv(width, 3, stride, padding=1, bias=True, name=f"conv{index}")(x))
        x = nn.relu(nn.Dense(self.hidden, name="linear1")(layers.flatten(x)))
        return nn.Dense(self.classes, name="linear2")(x)
