"""Hessian trace: the curvature of the loss in a weight times the squared error of its codes."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from spartax import catalog, checks, gradients
from spartax.quantize.bits._tables import loss_change, squared_error, tabulate
from spartax.quantize.records import Candidates, Losses, Sensitivity
from spartax.records import Array, Evidence, Path, Weights


def hessian_trace(probes: int = 50) -> Sensitivity:
    """Loss `tr(H_l) / (2 n_l) * ||W_o - W||^2`: the second-order growth of the mean loss, its curvature averaged.

    The trace of each weight's block is estimated by Hutchinson's `E[v^T H v]` over vectors v of random signs, one
    product with the Hessian for all weights; a negative estimate counts as none. See Dong et al., HAWQ-V2: Hessian
    Aware trace-Weighted Quantization of Neural Networks, arXiv 1911.03852.

    Args:
      probes: random vectors for each batch.

    Raises:
      ValueError: no positive number of probes; at use, no key, no labelled batches or loss, a loss that is not finite.
    """
    checks.positive_int("probes", probes)

    def losses(weights: Weights, candidates: Candidates, evidence: Evidence) -> Losses:
        traces = hessian_traces(weights, evidence, probes)
        mean = {path: max(trace, 0.0) / weights[path].size for path, trace in traces.items()}
        return tabulate(candidates, lambda path, leaf: mean[path] * squared_error(leaf, weights[path]) / 2)

    return Sensitivity(frozenset({"objective", "key"}), losses, loss_change)


def hessian_traces(weights: Weights, evidence: Evidence, probes: int = 50) -> dict[Path, float]:
    """Hutchinson's estimate of the trace of the Hessian of the mean loss in each weight.

    Args:
      weights: dense arrays.
      evidence: `objective`, with labels and a loss, and `key`.
      probes: random vectors for each batch.
    """
    judge, batches = gradients.judged("hessian_trace", weights, evidence)
    key, weights = catalog.need("key", evidence), gradients.full(weights)
    keys = [jax.random.fold_in(key, number) for number in range(len(batches))]
    found = [_traces(judge, probes, weights, k, x, y) for k, (x, y) in zip(keys, batches)]
    shares = [len(x) / sum(len(x) for x, _ in batches) for x, _ in batches]
    traces = {path: sum(share * float(f[path]) for share, f in zip(shares, found)) for path in weights}
    checks.finite("hessian_trace: the trace", jnp.asarray(list(traces.values())))
    return traces


@jax.jit(static_argnums=1)
def _traces(judge: gradients.Judge, probes: int, weights: Weights, key: Array, x: Array, y: Array) -> dict[Path, Array]:
    inside = gradients.looped(judge)

    def once(total: dict[Path, Array], key: Array) -> tuple[dict[Path, Array], None]:
        keys = jax.random.split(key, len(weights))
        signs = {p: jax.random.rademacher(k, w.shape, w.dtype) for k, (p, w) in zip(keys, weights.items())}
        product = jax.grad(lambda w: optax.tree.vdot(jax.grad(inside)(w, x, y), signs))(weights)
        return {p: total[p] + jnp.sum(v * product[p]) / probes for p, v in signs.items()}, None

    return lax.scan(once, {path: jnp.zeros(()) for path in weights}, jax.random.split(key, probes))[0]
