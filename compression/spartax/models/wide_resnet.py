"""Wide residual networks, the usual large nets of adversarial training on CIFAR."""

from collections.abc import Sequence

from spartax import checks
from spartax.models import blocks, layers
from spartax.models.resnet import ResNet


def wide_resnet(
    depth: int = 28,
    widen: int = 10,
    classes: int = 10,
    *,
    mean: Sequence[float] = layers.CIFAR10_MEAN,
    std: Sequence[float] = layers.CIFAR10_STD,
) -> ResNet:
    """WRN-`depth`-`widen`: three groups of `(depth - 4) / 6` pre-activation blocks, `widen` times 16, 32, 64 channels.

    See Zagoruyko and Komodakis, "Wide Residual Networks" (arXiv:1605.07146), without dropout. WRN-28-10 has 36,479,194
    parameters for 10 classes, WRN-34-10 46,160,474.

    Args:
      depth: number of weighted layers, `6 n + 4`: 10, 16, 22, 28, 34, 40, 70 ...
      widen: widening factor.
      classes: number of logits.
      mean: subtracted per channel, in pixel units of [0, 1].
      std: divided by per channel.

    Returns:
      The module; its `batch_stats` change in training.

    Raises:
      ValueError: `depth` is not `6 n + 4` with `n >= 1`, or `widen` is not positive.
    """
    checks.positive_int("depth", depth, least=10)
    checks.positive_int("widen", widen)
    if depth % 6 != 4:
        raise ValueError(f"depth must be 6 n + 4 (10, 16, 22, 28, 34, 40, ...); got {depth!r}.")
    widths, depths = (16 * widen, 32 * widen, 64 * widen), ((depth - 4) // 6,) * 3
    return ResNet(
        widths, depths, 16, blocks.PreActBlock, preact=True, classes=classes, mean=tuple(mean), std=tuple(std)
    )
