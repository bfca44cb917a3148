"""SR-STE: N:M sparse from scratch, with gradients for what is removed too."""

import jax.numpy as jnp

from spartax import checks, tree
from spartax.arrays import TopOfGroups, dense, is_leaf
from spartax.arrays import top_of_groups as leaf
from spartax.prune.health import report
from spartax.records import Array, Evidence, Info, Params, Path, Transform


def sr_ste(n: int = 2, m: int = 4, *, every: int = 100) -> Transform:
    """Each weight becomes `TopOfGroups`: `n` of every `m` neighbours along the input axis are used, all are trained.

    The gradient of the dense weight goes straight through the mask. The other half of the method pulls what is removed
    towards zero, which steadies the mask; it belongs in front of the optimizer:
    `optax.chain(train.pull_removed(2e-4), optax.sgd(...))`. At the end `prune.finish(params)` fixes the masks.

    `update` changes nothing and reports how many entries of the mask have changed since the last one ("changed"), the
    sparse architecture divergence. See Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From
    Scratch, arXiv 2102.04010.

    Args:
      n: kept entries of a group.
      m: size of a group.
      every: training steps between two reports.

    Raises:
      ValueError: bad numbers; at use, a weight that is compressed already or whose input axis `m` does not divide.
    """
    checks.positive_int("m", m)
    checks.positive_int("n", n)
    checks.positive_int("every", every)
    if n > m:
        raise ValueError(f"n must be at most m = {m}; got {n}.")

    def init(params: Params, evidence: Evidence) -> tuple[Params, dict[Path, Array]]:
        new = {}
        for path, w in tree.pick(params, evidence.layouts).items():
            axis = evidence.layouts[path].inputs[-1] - w.ndim
            if is_leaf(w) or w.shape[axis] % m:
                what = type(w).__name__ if is_leaf(w) else f"an input axis of {w.shape[axis]}"
                raise ValueError(
                    f"{path}: sr_ste({n}, {m}) needs a plain array and an axis divisible by {m}; got {what}."
                )
            new[path] = TopOfGroups(w, n, m, axis)
        return tree.replace(params, new), {path: leaf.kept(w) for path, w in new.items()}

    def update(params: Params, state: dict, evidence: Evidence) -> tuple[Params, dict, Info]:
        found = {
            path: tree.inner(path, w, TopOfGroups, "TopOfGroups")
            for path, w in tree.pick(params, evidence.layouts).items()
        }
        masks = {path: leaf.kept(w) for path, w in found.items()}
        info = report(masks, {path: dense(w) for path, w in found.items()}, evidence, "sr_ste")
        changed = {path: int(jnp.sum(mask != state[path])) for path, mask in masks.items()}
        return params, masks, {p: {**info[p], "changed": changed[p]} for p in masks}

    return Transform(frozenset(), init, update, due=lambda step: step % every == 0)
