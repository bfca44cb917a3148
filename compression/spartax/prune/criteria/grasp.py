"""GraSP: weights whose removal would weaken the gradient flow."""

import jax
import jax.numpy as jnp

from spartax import checks, gradients
from spartax.records import Array, Criterion, Evidence, Weights


def grasp(temperature: float = 200.0) -> Criterion:
    """Score `w * (H g) / |sum w * (H g)|`, g the gradient and H the Hessian of the mean loss of `logits / temperature`.

    Removing entry i changes `||g||^2` by about `-2 w_i (H g)_i`, so the entries with a large positive score keep the
    gradient large and stay (the published score has the opposite sign). The temperature makes the softmax nearly
    linear and H stable. Meant for a network at its initialization, ten examples of every class, and `prune.pooled()`.
    See Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, arXiv 2002.07376.

    Args:
      temperature: positive.

    Raises:
      ValueError: bad temperature; at use, no labelled batches or loss, a loss that is not finite, gradients all zero.
    """
    checks.in_range("temperature", temperature, 1e-6, 1e9)

    @jax.jit
    def gradient(judge: gradients.Judge, weights: Weights, x: Array, y: Array) -> tuple[Array, Weights]:
        return jax.value_and_grad(judge)(weights, x, y)

    @jax.jit
    def product(judge: gradients.Judge, weights: Weights, g: Weights, x: Array, y: Array) -> tuple[Array, Weights]:
        (loss, _), (_, hessian_g) = jax.jvp(lambda w: jax.value_and_grad(judge)(w, x, y), (weights,), (g,))
        return loss, hessian_g

    def score(weights: Weights, evidence: Evidence) -> Weights:
        judge, batches = gradients.judged("grasp", weights, evidence)
        gradients.warn_if_one_class("grasp", batches)
        judge, weights = judge._replace(temperature=temperature), gradients.full(weights)
        g = gradients.average("grasp", lambda x, y: gradient(judge, weights, x, y), batches)
        return _shares(weights, gradients.average("grasp", lambda x, y: product(judge, weights, g, x, y), batches))

    return Criterion(frozenset({"objective"}), score)


@jax.jit
def _shares(weights: Weights, hessian_g: Weights) -> Weights:
    flow = {path: w * hessian_g[path] for path, w in weights.items()}
    total = jnp.abs(sum(jnp.sum(f) for f in flow.values())) + 1e-8
    return {path: f / total for path, f in flow.items()}
