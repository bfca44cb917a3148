"""SAP: as many entries go as the PQ index says a layer can spare."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.kernels import threshold
from spartax.records import Allocation, Array, Evidence, Path, Weights

SCOPES = ("layer", "global")


def pq_index(weight: Array, p: float = 0.5, q: float = 1.0, mask: Array | None = None) -> Array:
    """How sparse a vector is: `1 - d^(1/q - 1/p) |w|_p / |w|_q`.

    It is 0 for entries of equal size and `1 - d^(1/q - 1/p)` for a single one, and depends neither on the scale of the
    vector nor on how often it is repeated. Computed on logarithms, so that small powers do not overflow. See Diao et
    al., Pruning Deep Neural Networks from a Sparsity Perspective, arXiv 2302.05601.

    Args:
      weight: array of any shape.
      p: smaller norm, 0 < p < q.
      q: larger norm.
      mask: entries that count, all when left out; `d` is their number.

    Raises:
      ValueError: not 0 < p < q.
    """
    _check_norms(p, q)
    alive = jnp.ones(weight.shape, jnp.bool_) if mask is None else mask
    return _index(jnp.sum(alive), _logs(weight, alive, p, q), p, q)


def sap(p: float = 0.5, q: float = 1.0, eta: float = 0.0, gamma: float = 1.0, scope: str = "layer") -> Allocation:
    """Removes `gamma (d - m)` of `d` entries, where `m = d (1 + eta)^(-q / (q - p)) (1 - I)^(p q / (q - p))`.

    `I` is the PQ index of the scores that are neither zero nor minus infinity, `d` their number (so that entries masked
    in earlier rounds do not count), and `m` the least number of entries that such a vector needs. The sparsity of
    `prune` is the most that one round may remove of what is alive, not what it removes. Meant to be repeated: train,
    prune, rewind.

    See Diao et al., arXiv 2302.05601.

    Args:
      p: smaller norm of the index.
      q: larger norm.
      eta: slack of the bound, larger removes more.
      gamma: part of what can be spared that is removed, larger removes more.
      scope: the index of each `"layer"`, or one `"global"` index whose entries are ranked together.

    Raises:
      ValueError: not 0 < p < q, `eta` or `gamma` negative, another scope.
    """
    _check_norms(p, q)
    checks.in_range("eta", eta, 0.0, math.inf)
    checks.in_range("gamma", gamma, 0.0, math.inf)
    checks.one_of("scope", scope, SCOPES)

    return _Sap(p, q, eta, gamma, scope)


class _Sap(NamedTuple):
    """The allocation; a value, so that it can say what its sparsity is."""

    p: float
    q: float
    eta: float
    gamma: float
    scope: str

    fixes_total = False  # the sparsity is the most that a round removes

    def __call__(self, scores: Weights, sparsity: float, evidence: Evidence) -> dict[Path, int]:
        del evidence
        p, q, eta, gamma, scope = self
        alive = {path: jnp.isfinite(score) & (score != 0) for path, score in scores.items()}
        logs = {path: _logs(score, alive[path], p, q) for path, score in scores.items()}
        counts = {path: int(jnp.sum(mask)) for path, mask in alive.items()}
        kept = lambda d, index: d - _spared(d, float(index), p, q, eta, gamma, sparsity)  # noqa: E731
        if scope == "layer":
            return {path: kept(d, _index(d, logs[path], p, q)) for path, d in counts.items()}
        first, second = (jax.nn.logsumexp(jnp.stack(values)) for values in zip(*logs.values()))
        total = sum(counts.values())
        ranked = threshold.kth_largest(list(scores.values()), kept(total, _index(total, (first, second), p, q))).kept
        return {path: int(k) for path, k in zip(scores, ranked)}


def _spared(d: int, index: float, p: float, q: float, eta: float, gamma: float, most: float) -> int:
    """How many of `d` entries go."""
    bound = d * (1 + eta) ** (-q / (q - p)) * (1 - index) ** (q * p / (q - p))
    # What should be whole may fall just under it.
    return math.floor(min(gamma * (d - math.ceil(bound - 1e-6)), most * d) + 1e-6)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _logs(weight: Array, alive: Array, p: float, q: float) -> tuple[Array, Array]:
    """`log sum |w|^p` and the same for q, over the entries that are alive."""
    sizes = jnp.log(jnp.where(alive, jnp.abs(weight), 0).astype(jnp.float32))
    return jax.nn.logsumexp(p * sizes), jax.nn.logsumexp(q * sizes)


def _index(d: Array | int, logs: tuple[Array, Array], p: float, q: float) -> Array:
    """The index from the logarithms of the power sums; 0 for a vector of zeros."""
    log_p, log_q = logs
    found = 1 - jnp.exp((1 / q - 1 / p) * jnp.log(jnp.maximum(d, 1)) + log_p / p - log_q / q)
    return jnp.where(jnp.isfinite(log_q), jnp.maximum(found, 0), 0)


def _check_norms(p: float, q: float) -> None:
    if not 0 < p < q < math.inf:
        raise ValueError(f"p and q must satisfy 0 < p < q; got p = {p!r}, q = {q!r}.")
