"""Relevance: weights that explain the right answers matter."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from spartax import catalog, checks, gradients, program, tree
from spartax.program.relevance import LrpRule
from spartax.records import Array, Criterion, Evidence, Objective, Weights


def relevance(rule: LrpRule | None = None, *, per_output: bool = False, normalize: bool = True) -> Criterion:
    """Score: the relevance for the true class that passes through a weight, by layer-wise relevance propagation.

    With the backward pass of `program.relevance`, `score = mean_x w * d logit_y / dw`. Under the z+ rule it has the
    sign of the logit. The sum over the weights of a unit is the relevance of its output (over all positions), which
    `per_output=True` gives to each of them. A few labelled examples of every class are enough; the loss is not used.
    See Yeom et al., Pruning by Explaining: A Novel Criterion for Deep Neural Network Pruning, arXiv 1912.08881.

    Args:
      rule: of contractions, such as `program.alpha_beta(2)` or `program.epsilon()`; `program.alpha_beta(1)`, the z+
        rule, when left out.
      per_output: whether all weights of an output unit score their sum.
      normalize: divide the scores of a weight by the sum of their sizes, so that layers can be ranked together.

    Raises:
      ValueError: at use, batches without labels or values, or relevance that is zero everywhere.
    """
    rule = rule or _Z_PLUS

    def score(weights: Weights, evidence: Evidence) -> Weights:
        objective = catalog.need("objective", evidence)
        _check(objective)
        wide = gradients.full(weights)
        layouts = tuple((path, evidence.layouts[path]) for path in wide)
        total, count = jax.tree.map(jnp.zeros_like, wide), sum(len(x) for x, _ in objective.batches)
        for x, y in objective.batches:
            total = jax.tree.map(jnp.add, total, _passed(tree.argument(objective.logits), rule, wide, x, y))
        checks.nonzero("relevance: the relevance", total.values())
        found = _scores(total, count, layouts if per_output else (), normalize)
        return {path: found[path] for path in weights}

    return Criterion(frozenset({"objective"}), score)


_Z_PLUS = program.alpha_beta()


def _check(objective: Objective) -> None:
    for batch in objective.batches:
        if not isinstance(batch, tuple | list) or isinstance(batch[0], jax.ShapeDtypeStruct):
            raise ValueError("batches must be (x, y) with values: relevance starts at the logit of the true class.")


@functools.partial(jax.jit, static_argnums=1)
def _passed(logits: Callable[..., Array], rule: LrpRule, weights: Weights, x: Array, y: Array) -> Weights:
    """Relevance that passes through every weight, summed over the batch."""
    explained = program.relevance(logits, rule)

    def true_logits(weights: Weights) -> Array:
        return jnp.sum(jnp.take_along_axis(explained(weights, x), y[:, None], axis=1))

    return jax.tree.map(jnp.multiply, weights, jax.grad(true_logits)(weights))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _scores(total: Weights, count: int, layouts: tuple, normalize: bool) -> Weights:
    for path, layout in layouts:
        units = jnp.sum(total[path], axis=layout.inputs, keepdims=True)
        total = {**total, path: jnp.broadcast_to(units, total[path].shape)}
    size = {path: jnp.sum(jnp.abs(s)) if normalize else count for path, s in total.items()}
    return {path: s / jnp.where(size[path] == 0, 1, size[path]) for path, s in total.items()}
