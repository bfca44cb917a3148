"""Gradients of the loss in the weights: what the methods that look at labelled data start from.

The functions that run on the device take a `Judge` as an argument, so that a method can hold one jitted function and
compile it once for one network, whatever its biases and norms are by now.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax import catalog, checks, program, tree
from spartax.records import Array, Evidence, Loss, Weights


class Judge(NamedTuple):
    """The mean loss of a batch as a function of the weights; `jax.grad` of it is the gradient of the batch.

    Attributes:
      logits: `(weights, x) -> logits`.
      loss: `(logits, y) -> [B]`, or its mean.
      temperature: the logits are divided by it.
    """

    logits: Callable[[Weights, Array], Array]
    loss: Loss
    temperature: float = 1.0

    def __call__(self, weights: Weights, x: Array, y: Array) -> Array:
        """Mean loss."""
        return jnp.mean(self.loss(self.logits(weights, x) / self.temperature, y))


def judged(name: str, weights: Weights, evidence: Evidence) -> tuple[Judge, tuple[tuple[Array, Array], ...]]:
    """The judge, and the labelled batches.

    The loss of the first batch is looked at, so that one which is not finite is refused before the others are read.

    Args:
      name: of the method, for the messages.
      weights: dense arrays.
      evidence: with the objective.

    Raises:
      ValueError: no objective, no loss, batches without labels or without values, a loss that is not finite.
    """
    objective = catalog.need("objective", evidence)
    if objective.loss is None:
        raise ValueError("loss is needed by this method: give compress loss=, a function (logits, y) -> [B].")
    for batch in objective.batches:
        if not isinstance(batch, tuple | list) or isinstance(batch[0], jax.ShapeDtypeStruct):
            raise ValueError("batches must be (x, y) with values: this method needs gradients of the loss.")
    if not objective.batches:
        raise ValueError("batches is empty; gradients of the loss need at least one batch.")
    judge = Judge(tree.argument(objective.logits), tree.argument(objective.loss))
    loss = batch_loss(judge, full(weights), *objective.batches[0])
    if checks.is_concrete(loss) and not jnp.isfinite(loss):
        raise ValueError(f"{name}: the loss of the first batch is {loss}; check the weights, the data and the loss.")
    return judge, objective.batches


@jax.jit
def batch_loss(judge: Judge, weights: Weights, x: Array, y: Array) -> Array:
    """Mean loss of one batch, compiled once for one network."""
    return judge(weights, x, y)


def looped(judge: Judge) -> Judge:
    """The same for use inside `lax` loops, where gradients of convolutions are else slow on CPU; no forward mode."""
    return judge._replace(logits=program.fast_gradients(judge.logits))


def full(weights: Weights) -> Weights:
    """The weights in float32 at least, so that gradients are."""
    return {path: w.astype(jnp.promote_types(w.dtype, jnp.float32)) for path, w in weights.items()}


def average(name: str, function: Callable[[Array, Array], tuple[Array, Weights]], batches: Any) -> Weights:
    """Mean over all examples of what `function(x, y) -> (mean loss, values)` gives for each batch.

    Raises:
      ValueError: a loss that is not finite, or values that are zero everywhere; the message begins with `name`.
    """
    total, count = None, 0
    for x, y in batches:
        new = function(x, y)
        total = _scaled(new, len(x)) if total is None else _added(total, new, len(x))
        count += len(x)
    loss, values = _scaled(total, 1 / count)
    checks.finite(f"{name}: the loss", loss)
    checks.nonzero(f"{name}: the gradient of the loss", values.values())
    return values


def per_example(
    judge: Judge, weights: Weights, x: Array, y: Array, step: Callable[[Any, Weights], Any], start: Any, group: int = 1
) -> tuple[Array, Any]:
    """`carry = step(carry, gradient)` over the gradients of single examples, or of the mean loss of `group` of them.

    One gradient is held at a time. Returns the mean loss and the last carry.
    """

    def body(carry: Any, examples: tuple[Array, Array]) -> tuple[Any, Array]:
        loss, gradient = jax.value_and_grad(looped(judge))(weights, *examples)
        return step(carry, gradient), loss

    groups = x.reshape(-1, group, *x.shape[1:]), y.reshape(-1, group, *y.shape[1:])
    carry, losses = lax.scan(body, start, groups)
    return jnp.mean(losses), carry


def mean_square(judge: Judge, weights: Weights, x: Array, y: Array) -> tuple[Array, Weights]:
    """`(mean loss, E[g^2])` over the gradients of single examples: the diagonal of the empirical Fisher information."""
    add = lambda total, g: jax.tree.map(lambda t, g: t + jnp.square(g), total, g)  # noqa: E731
    loss, total = per_example(judge, weights, x, y, add, jax.tree.map(jnp.zeros_like, weights))
    return loss, jax.tree.map(lambda t: t / x.shape[0], total)


def warn_if_one_class(name: str, batches: Any) -> None:
    """Class labels that are all the same say nothing about what tells classes apart."""
    labels = [y for _, y in batches]
    if all(checks.is_concrete(y) and jnp.issubdtype(y.dtype, jnp.integer) for y in labels):
        seen = np.unique(np.concatenate([np.asarray(y).ravel() for y in labels]))
        if len(seen) == 1:
            warnings.warn(f"{name}: every label is {seen[0]}; give batches of all classes, ten of each.", stacklevel=2)


@jax.jit
def _scaled(tree: Any, factor: Array) -> Any:
    return jax.tree.map(lambda a: a * factor, tree)


@jax.jit
def _added(total: Any, new: Any, factor: Array) -> Any:
    return jax.tree.map(lambda a, b: a + b * factor, total, new)
