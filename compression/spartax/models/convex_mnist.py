"""The MNIST network of certified training by the convex outer adversarial polytope."""

from spartax.models.cnn_a import CNNA


def convex_mnist(classes: int = 10) -> CNNA:
    """CNN-A on gray images without normalization; 166,406 parameters on 28x28x1 images.

    See Wong and Kolter, "Provable defenses against adversarial examples via the convex outer adversarial polytope"
    (arXiv:1711.00851).

    Args:
      classes: number of logits.

    Returns:
      The module: images float [B, 28, 28, 1] in [0, 1] -> logits [B, classes].
    """
    return CNNA(classes=classes, mean=(0.0,), std=(1.0,))
