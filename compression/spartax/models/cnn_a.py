"""CNN-A: two strided convolutions and two linear layers, the usual small net of robustness certification."""

from collections.abc import Sequence

import flax.linen as nn

from spartax.models import layers
from spartax.records import Array


class CNNA(nn.Module):
    """Two 4x4 convolutions of stride 2 (16 and 32 channels), then linear layers of 100 and `classes`; ReLU between.

    See Dathathri et al., "Enabling certification of verification-agnostic networks via memory-efficient semidefinite
    programming" (arXiv:2010.11645), where it is CNN-A; 214,918 parameters on 32x32x3 images.

    Attributes:
      widths: channels of the two convolutions.
      hidden: units of the first linear layer.
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.
    """

    widths: Sequence[int] = (16, 32)
    hidden: int = 100
    classes: int = 10
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.225,)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Images float [B, H, W, C] in [0, 1] -> logits [B, classes]; `train` changes nothing."""
        del train
        x = layers.normalize(x, self.mean, self.std)
        for index, width in enumerate(self.widths, start=1):
            x = nn.relu(layers.conv(width, 4, 2, padding=1, bias=True, name=f"conv{index}")(x))
        x = nn.relu(nn.Dense(self.hidden, name="linear1")(layers.flatten(x)))
        return nn.Dense(self.classes, name="linear2")(x)
