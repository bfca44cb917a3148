"""Twin-Rep: weights that training itself makes sparse, because each is the product of two that decay."""

from typing import Any

import jax
import jax.numpy as jnp

from spartax import tree
from spartax.arrays import Twin, is_leaf
from spartax.records import Array, Evidence, Info, Params, Path, Transform


def twin_rep() -> Transform:
    """Each weight becomes `Twin`, `w = u v` entry by entry, beginning at `u = sign(w) sqrt|w|`, `v = sqrt|w|`.

    Weight decay on both, `a / 2 (u^2 + v^2)`, is at its least `a |w|`: an L1 penalty without its kink, which leaves
    few large products. So train with `optax.chain(optax.add_decayed_weights(a), optax.sgd(...))` under any loss, then
    `prune.finish(params)` multiplies the twins, `prune.prune(prune.magnitude(), sparsity)` removes the smallest
    products over all layers, and the same loss trains what is left. A weight of zero, both of whose twins are zero, has
    no gradient and stays there. `update` changes nothing and reports the share of products under a thousandth of the
    largest of their layer ("small").

    See Li et al., Learning Adversarially Robust Sparse Networks via Weight Reparameterization (AAAI 2023), whose first
    values of the twins are not published in its abstract: those here leave the network as it is, and are the pair of
    least decay.

    Raises:
      ValueError: at use, a weight that is compressed already.
    """

    def init(params: Params, evidence: Evidence) -> tuple[Params, dict]:
        weights = tree.pick(params, evidence.layouts)
        return tree.replace(params, {path: _twins(path, w) for path, w in weights.items()}), {}

    def update(params: Params, state: dict, evidence: Evidence) -> tuple[Params, dict, Info]:
        return params, state, {path: _told(path, w) for path, w in tree.pick(params, evidence.layouts).items()}

    return Transform(frozenset(), init, update)


def _twins(path: Path, weight: Any) -> Twin:
    if is_leaf(weight):
        raise ValueError(f"{path}: twin_rep trains plain arrays; got a {type(weight).__name__}.")
    return _split(weight)


@jax.jit
def _split(weight: Array) -> Twin:
    size = jnp.sqrt(jnp.abs(weight))
    return Twin(jnp.sign(weight) * size, size)


def _told(path: Path, weight: Any) -> dict[str, Any]:
    found = [x for x in jax.tree.leaves(weight, is_leaf=_is_twin) if _is_twin(x)]
    if not found:
        raise ValueError(f"{path} holds no Twin; call init of this transform first.")
    return {"method": "twin_rep", "size": found[0].weight.size, "small": float(_small(found[0]))}


def _is_twin(x: Any) -> bool:
    return isinstance(x, Twin)


@jax.jit
def _small(leaf: Twin) -> Array:
    size = jnp.abs(leaf.weight * leaf.twin)
    return jnp.mean(size <= 1e-3 * jnp.max(size))
