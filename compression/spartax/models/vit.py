"""A vision transformer, small by default."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from spartax.models import layers
from spartax.records import Array


class EncoderBlock(nn.Module):
    """Pre-normalized transformer block: `x = x + attention(norm(x)); x + mlp(norm(x))`.

    Query, key, value and output projections are plain matrices `[width, width]`, all of them open to compression.

    Attributes:
      heads: number of attention heads; divides the width.
      hidden: units of the perceptron.
    """

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Tokens `[B, T, width] -> [B, T, width]`."""
        width = x.shape[-1]
        y = nn.LayerNorm(epsilon=1e-6, name="norm1")(x)
        split = (*x.shape[:-1], self.heads, width // self.heads)
        query, key, value = (nn.Dense(width, name=name)(y).reshape(split) for name in ("query", "key", "value"))
        y = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
        x = x + nn.Dense(width, name="out")(y)
        y = nn.LayerNorm(epsilon=1e-6, name="norm2")(x)
        y = nn.gelu(nn.Dense(self.hidden, name="mlp1")(y), approximate=False)
        return x + nn.Dense(width, name="mlp2")(y)


class ViT(nn.Module):
    """Vision transformer: patches become tokens, a class token and learnt positions are added, blocks, linear head.

    See Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv:2010.11929), and Touvron et al. (arXiv:2012.12877)
    for the tiny width. The defaults (patch 4, 6 layers of width 192) have 2,693,578 parameters on 32x32x3 images;
    patch 16, 12 layers and 1,000 classes on 224x224x3 make DeiT-Tiny with 5,717,416.

    Attributes:
      patch: side of a patch in pixels; divides height and width.
      width: token width.
      depth: number of blocks.
      heads: attention heads of a block; divides `width`.
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.
    """

    patch: int = 4
    width: int = 192
    depth: int = 6
    heads: int = 3
    classes: int = 10
    mean: Sequence[float] = layers.CIFAR10_MEAN
    std: Sequence[float] = layers.CIFAR10_STD

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Images float [B, H, W, C] in [0, 1] -> logits [B, classes]; `train` changes nothing.

        Raises:
          ValueError: `patch` does not divide the image or `heads` the width.
        """
        del train
        self._check(x.shape)
        x = layers.normalize(x, self.mean, self.std)
        x = layers.conv(self.width, self.patch, self.patch, bias=True, name="embed")(x)
        x = x.reshape((x.shape[0], -1, self.width))
        token = self.param("token", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], axis=1)
        x = x + self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for index in range(self.depth):
            x = EncoderBlock(self.heads, 4 * self.width, name=f"block_{index}")(x)
        x = nn.LayerNorm(epsilon=1e-6, name="norm")(x)
        return nn.Dense(self.classes, name="linear")(x[:, 0])

    def _check(self, shape: Sequence[int]) -> None:
        if shape[1] % self.patch or shape[2] % self.patch:
            raise ValueError(f"patch must divide the image height and width; got {self.patch!r} for shape {shape}.")
        if self.width % self.heads:
            raise ValueError(f"heads must divide the width {self.width}; got {self.heads!r}.")
