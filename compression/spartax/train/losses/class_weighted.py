"""`class_weighted`: cross-entropy that costs more on some classes, so that compression does not forget them."""

from collections.abc import Collection, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spartax import checks
from spartax.records import Array
from spartax.train.network import Loss, Network


def class_weighted(weights: Sequence[float], *, pairwise: float = 0.0, important: Collection[int] = ()) -> Loss:
    """`mean_i w[y_i] CE(f(x_i), y_i) + pairwise * mean_{c in important} hinge_c`.

    `hinge_c` is the squared hinge of all pairs of one example `i` of class `c` and one `j` of another class,
    `mean_{i, j} max(0, 1 - (s_i - s_j))^2`, a smooth stand-in for 1 - AUC; `s = z_c - log sum_{k != c} exp z_k` is the
    log-odds of the class. A batch without such a pair adds nothing. With two classes, `weights=(1, w)` and
    `important=(1,)` this is the loss that keeps false negatives of class 1 low in Class-dependent Compression of Deep
    Neural Networks (Entezari and Saukh); without `important` it is plain class weighting.

    Args:
      weights: one positive number for each class; 1 everywhere is `train.clean()`.
      pairwise: factor of the hinge, 0 or more.
      important: the classes whose ranking counts.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`; the key is not used.

    Raises:
      ValueError: weights that are not positive, a pairwise factor without important classes or the other way round, a
        class that has no weight; at the call, logits with another number of classes.
    """
    factors = np.asarray(weights, np.float32)
    if factors.ndim != 1 or not np.all(np.isfinite(factors) & (factors > 0)):
        raise ValueError(f"weights must be positive numbers, one for each class; got {weights!r}.")
    checks.in_range("pairwise", pairwise, 0.0, float("inf"), open_high=True)
    if bool(important) != (pairwise > 0):
        raise ValueError(f"pairwise and important go together; got pairwise={pairwise!r}, important={important!r}.")
    for label in important:
        checks.one_of("important", label, range(len(factors)))

    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        del key
        logits, updates = network.forward(x)
        if logits.shape[1] != len(factors):
            raise ValueError(f"weights must hold one number for each of {logits.shape[1]} classes; got {len(factors)}.")
        logits = logits.astype(jnp.float32)
        each = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
        hinges = [_pair_hinge(logits, y, label) for label in important]
        return jnp.mean(jnp.asarray(factors)[y] * each) + pairwise * sum(hinges) / max(len(hinges), 1), updates

    return loss


def _pair_hinge(logits: Array, y: Array, label: int) -> Array:
    """`mean max(0, 1 - (s_i - s_j))^2` over all pairs with `y_i = label != y_j`."""
    rest = jax.nn.logsumexp(jnp.where(jnp.arange(logits.shape[1]) == label, -jnp.inf, logits), axis=1)
    odds = logits[:, label] - rest
    pair = (y == label)[:, None] & (y != label)
    lost = jnp.square(jax.nn.relu(1 - (odds[:, None] - odds)))
    return jnp.sum(jnp.where(pair, lost, 0.0)) / jnp.maximum(jnp.sum(pair), 1)
