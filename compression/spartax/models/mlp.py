"""A multilayer perceptron."""

from collections.abc import Sequence

import flax.linen as nn

from spartax.models import layers
from spartax.records import Array


class MLP(nn.Module):
    """Linear layers with ReLU between: `logits = W_n relu( ... relu(W_1 flatten(x) + b_1) ... ) + b_n`.

    Attributes:
      widths: units of each hidden layer; none makes it a linear classifier.
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.
    """

    widths: Sequence[int] = (128, 128)
    classes: int = 10
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Images float [B, ..., C] in [0, 1] -> logits [B, classes]; `train` changes nothing."""
        del train
        x = layers.flatten(layers.normalize(x, self.mean, self.std))
        for index, width in enumerate(self.widths, start=1):
            x = nn.relu(nn.Dense(width, name=f"linear{index}")(x))
        return nn.Dense(self.classes, name=f"linear{len(self.widths) + 1}")(x)
