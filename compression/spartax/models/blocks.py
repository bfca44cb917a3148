"""The two residual blocks and their shortcuts."""

import flax.linen as nn
import jax.numpy as jnp

from spartax.models import layers
from spartax.records import Array


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by batch normalization: `relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))`.

    See He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385).

    Attributes:
      width: output channels.
      stride: stride of the first convolution and of the shortcut.
      shortcut: where the shape changes, `"A"` drops every second pixel and pads channels with zeros on both sides (no
        parameters); `"B"` is a 1x1 convolution with batch normalization.
    """

    width: int
    stride: int = 1
    shortcut: str = "B"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """`[B, H, W, C] -> [B, H/stride, W/stride, width]`."""
        y = layers.conv(self.width, 3, self.stride, padding=1, name="conv1")(x)
        y = nn.relu(layers.batch_norm(train, "bn1")(y))
        y = layers.conv(self.width, 3, padding=1, name="conv2")(y)
        y = layers.batch_norm(train, "bn2")(y)
        if self.stride != 1 or x.shape[-1] != self.width:
            x = self._reshape(x, train)
        return nn.relu(y + x)

    def _reshape(self, x: Array, train: bool) -> Array:
        if self.shortcut == "A":
            return pad_channels(x[:, :: self.stride, :: self.stride], self.width)
        x = layers.conv(self.width, 1, self.stride, name="shortcut")(x)
        return layers.batch_norm(train, "shortcut_bn")(x)


class PreActBlock(nn.Module):
    """Normalization and ReLU before each convolution: `h = relu(bn(x)); conv(relu(bn(conv(h)))) + shortcut`.

    The shortcut is `x`, or a 1x1 convolution of `h` where the shape changes. See He et al., "Identity Mappings in Deep
    Residual Networks" (arXiv:1603.05027); wide residual networks use the same block.

    Attributes:
      width: output channels.
      stride: stride of the first convolution and of the shortcut.
    """

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """`[B, H, W, C] -> [B, H/stride, W/stride, width]`."""
        h = nn.relu(layers.batch_norm(train, "bn1")(x))
        if self.stride != 1 or x.shape[-1] != self.width:
            x = layers.conv(self.width, 1, self.stride, name="shortcut")(h)
        y = layers.conv(self.width, 3, self.stride, padding=1, name="conv1")(h)
        y = nn.relu(layers.batch_norm(train, "bn2")(y))
        return x + layers.conv(self.width, 3, padding=1, name="conv2")(y)


def pad_channels(x: Array, width: int) -> Array:
    """Zero channels on both sides until there are `width` of them: `[B, H, W, C] -> [B, H, W, width]`."""
    before = (width - x.shape[-1]) // 2
    after = width - x.shape[-1] - before
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, after)))
