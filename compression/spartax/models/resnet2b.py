"""ResNet-2B: a residual network of two blocks without batch normalization, small enough to be verified."""

from collections.abc import Sequence

import flax.linen as nn

from spartax.models import layers
from spartax.records import Array


class PlainBlock(nn.Module):
    """`relu(conv(relu(conv(x))) + shortcut(x))` with biases and no normalization; 1x1 shortcut where the shape changes.

    Attributes:
      width: output channels.
      stride: stride of the first convolution and of the shortcut.
    """

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, C] -> [B, H/stride, W/stride, width]`."""
        y = nn.relu(layers.conv(self.width, 3, self.stride, padding=1, bias=True, name="conv1")(x))
        y = layers.conv(self.width, 3, padding=1, bias=True, name="conv2")(y)
        if self.stride != 1 or x.shape[-1] != self.width:
            x = layers.conv(self.width, 1, self.stride, bias=True, name="shortcut")(x)
        return nn.relu(y + x)


class ResNet2B(nn.Module):
    """A strided 3x3 stem, two plain residual blocks (the first halves the resolution), two linear layers.

    See Wang et al., "Beta-CROWN" (arXiv:2103.06624); 112,006 parameters on 32x32x3 images.

    Attributes:
      stem: channels of the stem; the blocks have twice as many.
      depth: number of residual blocks.
      hidden: units of the first linear layer.
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.
    """

    stem: int = 8
    depth: int = 2
    hidden: int = 100
    classes: int = 10
    mean: Sequence[float] = layers.CIFAR10_MEAN
    std: Sequence[float] = layers.CIFAR10_STD

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Images float [B, H, W, C] in [0, 1] -> logits [B, classes]; `train` changes nothing."""
        del train
        x = layers.normalize(x, self.mean, self.std)
        x = nn.relu(layers.conv(self.stem, 3, 2, padding=1, bias=True, name="conv1")(x))
        for index in range(self.depth):
            x = PlainBlock(2 * self.stem, 2 if index == 0 else 1, name=f"layer1_{index}")(x)
        x = nn.relu(nn.Dense(self.hidden, name="linear1")(layers.flatten(x)))
        return nn.Dense(self.classes, name="linear2")(x)
