"""`relevance(fn)`: layer-wise relevance propagation (LRP) as the backward pass of any function.

LRP hands a relevance `R` from the outputs back to the inputs. Written as `R = value * c`, the backward pass carries `c`
in the place of the gradient, and most of the rules are the derivative itself: a relu passes all relevance of an active
unit, a max-pool gives it to the winner, sums (average-pools, residual branches, biases, normalization with fixed
statistics) split it in proportion to their terms, rearrangements move it. Only contractions need a rule of their own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import primitives

from spartax import checks
from spartax.program import walk
from spartax.records import Array

Product = Callable[[Array, Array], Array]  # a contraction of its two operands
LrpRule = Callable[[Product, Array, Array, Array], tuple[Array, Array]]
# rule(product, a, b, c): what stands for the gradients in a and b of product(a, b) when c stands for that of the result
CONTRACTIONS = (primitives.dot_general_p, primitives.conv_general_dilated_p)


def relevance(fn: Callable[..., Any], rule: LrpRule | None = None) -> Callable[..., Any]:
    """The same function, for which "gradient times value" is relevance.

    With `c = jax.grad(lambda x: relevance(fn)(x)[0, y])(x)`, `x * c` is the relevance of the inputs for the logit of
    class `y`, which sums to that logit less what biases took; with the gradient in a weight, `w * c` is what passed
    through each of its entries, summed over examples and positions, and its sum over the inputs of a unit is the
    relevance of that unit. A product of two activations (attention) gives each of them the whole.

    See Bach et al., On Pixel-Wise Explanations by Layer-Wise Relevance Propagation (PLoS ONE 2015), and Yeom et al.,
    Pruning by Explaining, arXiv 1912.08881.

    Args:
      fn: a pure function of arrays; for compressed params write `relevance(compressed(fn))`.
      rule: of contractions, `alpha_beta(1)` (the z+ rule) when left out, or `epsilon(...)`.

    Returns:
      A function of the same signature and values (not jitted).
    """
    rule = rule or alpha_beta()

    def visit(eqn: Any, values: list[Any], trips: int) -> list[Any] | None:
        floating = all(jnp.issubdtype(v.dtype, jnp.floating) for v in values)
        if eqn.primitive not in CONTRACTIONS or not floating or eqn.params.get("batch_group_count", 1) > 1:
            return None
        return [_with_rule(lambda a, b: eqn.primitive.bind(a, b, **eqn.params), rule)(*values)]

    return walk.rewritten(fn, visit)


def alpha_beta(alpha: float = 1.0, stabilizer: float = 1e-9) -> LrpRule:
    """`R_i = sum_j (alpha p_ij / p_j - (alpha - 1) n_ij / n_j) R_j`, `p` and `n` the positive and negative `x_i w_ij`.

    `alpha = 1` is the z+ rule: only what adds to a unit explains it, and with a relevance that is not negative none of
    its parts is.

    Args:
      alpha: 1 or more.
      stabilizer: added to the size of `p_j` and `n_j`.
    """
    checks.in_range("alpha", alpha, 1.0, float("inf"), open_high=True)
    checks.in_range("stabilizer", stabilizer, 0.0, 1.0)

    def rule(product: Product, a: Array, b: Array, c: Array) -> tuple[Array, Array]:
        share = product(a, b) * c

        def positive(a: Array, b: Array) -> Array:
            return product(_above(a), _above(b)) + product(_below(a), _below(b))

        def negative(a: Array, b: Array) -> Array:
            return product(_above(a), _below(b)) + product(_below(a), _above(b))

        p, to_p = jax.vjp(positive, a, b)
        found = to_p(alpha * _ratio(share, p + stabilizer))
        if alpha == 1:
            return found
        n, to_n = jax.vjp(negative, a, b)
        return jax.tree.map(jnp.add, found, to_n((1 - alpha) * _ratio(share, n - stabilizer)))

    return rule


def epsilon(stabilizer: float = 1e-6) -> LrpRule:
    """`R_i = sum_j x_i w_ij R_j / (z_j + stabilizer sign z_j)`; at 0 this is gradient times value.

    Args:
      stabilizer: takes up relevance of units with a small sum, in units of their values.
    """
    checks.in_range("stabilizer", stabilizer, 0.0, float("inf"), open_high=True)

    def rule(product: Product, a: Array, b: Array, c: Array) -> tuple[Array, Array]:
        z, back = jax.vjp(product, a, b)
        return back(_ratio(z * c, z + stabilizer * jnp.where(z < 0, -1, 1).astype(z.dtype)))

    return rule


def _with_rule(product: Product, rule: LrpRule) -> Product:
    def backward(saved: tuple[Array, Array], c: Array) -> tuple[Array, Array]:
        a, b = saved
        return rule(product, a, b, c)

    ruled = jax.custom_vjp(product)
    ruled.defvjp(lambda a, b: (product(a, b), (a, b)), backward)
    return ruled


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def _above(x: Array) -> Array:
    return jnp.where(x > 0, x, 0)


def _below(x: Array) -> Array:
    return jnp.where(x < 0, x, 0)
