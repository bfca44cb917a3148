"""LeNet-5 in the wide variant used for adversarial training on MNIST."""

from collections.abc import Sequence

import flax.linen as nn

from spartax.models import layers
from spartax.records import Array


class LeNet5(nn.Module):
    """Two 3x3 convolutions with ReLU and 2x2 max-pooling, then two linear layers; 648,226 parameters on 28x28x1.

    After LeCun et al., "Gradient-based learning applied to document recognition" (1998), with the widths and kernel
    sizes that the adversarial-training toolbox AdverTorch (arXiv:1902.07623) gives it.

    Attributes:
      widths: channels of the two convolutions.
      hidden: units of the first linear layer.
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.
    """

    widths: Sequence[int] = (32, 64)
    hidden: int = 200
    classes: int = 10
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Images float [B, H, W, C] in [0, 1] -> logits [B, classes]; `train` changes nothing."""
        del train
        x = layers.normalize(x, self.mean, self.std)
        for index, width in enumerate(self.widths, start=1):
            x = nn.relu(layers.conv(width, 3, padding=1, bias=True, name=f"conv{index}")(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(self.hidden, name="linear1")(layers.flatten(x)))
        return nn.Dense(self.classes, name="linear2")(x)
