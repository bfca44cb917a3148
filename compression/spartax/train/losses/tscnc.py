"""`tscnc`: any loss, with weights kept sparse and their matrices well conditioned."""

import functools
import math
from collections.abc import Collection

import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import dense
from spartax.records import Array
from spartax.train.network import Loss, Network


def tscnc(
    base: Loss, layers: Collection[str], *, sparse: float = 1.0, conditioned: float = 1.0, a: float = 100.0
) -> Loss:
    """`base + sparse * mean rho_a(w) + conditioned * sum_l cnc(W_l)`.

    Pruning lowers the Lipschitz constant of a network and raises the condition numbers of its matrices; the first
    helps robustness and the second hurts it. The mean is over the entries of all weights of two axes or more, the sum
    over `layers`; both look at the weights under their masks. The paper puts `rho_a` on the gates of units and `cnc` on
    the last layer, under TRADES. See Lipschitz Constant Meets Condition Number: Learning Robust and Compact Deep Neural
    Networks.

    Args:
      base: such as `train.pgd_at(attack)`.
      layers: paths in the variables of the weights that stay well conditioned, such as `["params/linear/kernel"]`.
      sparse: factor of the transformed l1 norm, 0 or more.
      conditioned: factor of the condition-number constraint, 0 or more.
      a: shape of `transformed_l1`, positive.

    Returns:
      `loss(network, key, x, y) -> (value, updates)`, see `train.Loss`.

    Raises:
      ValueError: a factor out of its range, no layer; at use, a path that the variables do not have.
    """
    for name, factor in (("sparse", sparse), ("conditioned", conditioned)):
        checks.in_range(name, factor, 0.0, math.inf, open_high=True)
    if not a > 0:
        raise ValueError(f"a must be positive; got {a!r}.")
    if not layers:
        raise ValueError("layers must name at least one weight; got none.")

    @functools.wraps(base)
    def loss(network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict]:
        value, updates = base(network, key, x, y)
        found = tree.weights(network.variables)
        weights = [dense(w) for w in found.values() if tree.is_floating(w) and w.ndim > 1]
        total = sum(jnp.sum(transformed_l1(w, a)) for w in weights) / sum(w.size for w in weights)
        chosen = tree.pick(network.variables, layers).values()
        return value + sparse * total + conditioned * sum(cnc(dense(w)) for w in chosen), updates

    return loss


def transformed_l1(x: Array, a: float = 100.0) -> Array:
    """`rho_a(x) = (a + 1) |x| / (a + |x|)` of every entry: `|x|` for large `a`, a count of nonzeros for small."""
    size = jnp.abs(x).astype(jnp.promote_types(x.dtype, jnp.float32))
    return (a + 1) * size / (a + size)


def cnc(weight: Array, *, ridge: float = 1e-6) -> Array:
    """`(log(1e-5 + det(W^T W / d)))^2` of `W [n, d]`: zero when all singular values are `sqrt(d)`.

    All axes but the last of a kernel are its rows, and the smaller of the two sides gives the Gram matrix, which would
    be singular otherwise. The logarithm of the determinant is computed as such, since the determinant of many columns
    has no float. `ridge` times the identity is added, so that a removed column leaves finite derivatives.
    """
    rows = weight.reshape(-1, weight.shape[-1]).astype(jnp.promote_types(weight.dtype, jnp.float32))
    rows = rows if rows.shape[0] >= rows.shape[1] else rows.T
    columns = rows.shape[1]
    gram = jnp.matmul(rows.T, rows, precision="highest") / columns + ridge * jnp.eye(columns, dtype=rows.dtype)
    return jnp.square(jnp.logaddexp(jnp.linalg.slogdet(gram)[1], math.log(1e-5)))
