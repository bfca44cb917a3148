"""`factorize`: a factorization and a rule for the ranks joined into one transform."""

from typing import Any, NamedTuple

from spartax import tree
from spartax.arrays import Masked, dense, is_leaf, nbytes, pack
from spartax.lowrank import fitting
from spartax.records import Evidence, Factorization, Info, Params, Path, Ranks, Transform


class State(NamedTuple):
    """What `init` found: the ranks, and how far the last round still moved what has not settled."""

    chosen: fitting.Chosen
    unsettled: dict[Path, float]


def factorize(factorization: Factorization, ranks: Ranks) -> Transform:
    """Replace each selected weight by thin factors, such as `LowRank(left, right)` or `Tucker(first, core, last)`.

    Matrices have the contracted axes as rows when they come first (`[I, O]`, `[H, W, I, O]`), the output axes when
    those do (`[O, I, H, W]`); every layer of a stack is factorized on its own, at one rank. A weight whose factors
    would take at least its own bytes stays dense, and `info` says so, as does one of a kind that the factorization does
    not split. A `Masked` weight becomes factors under the same mask, where both together take fewer bytes than what it
    keeps; rank rules reckon with dense weights, the mask comes on top. Weights of one shape are factorized together, in
    one program. `init` does all the work, as the ranks are shapes; from then on the factors are free to be trained,
    and `update` only reports; where `lowrank.cp()` has not settled, `info` has a `warning`.

    Args:
      factorization: how a weight is split, such as `lowrank.svd()`.
      ranks: how many directions each weight keeps, such as `lowrank.fixed(16)`.

    Raises:
      ValueError: at use, a rank above the smaller side of a matrix or above the directions that the calibration data
        tell apart, a weight quantized or factorized already, none of a kind that the factorization splits, or
        statistics that it needs and that nobody gave, that are not finite, or zero everywhere; factors that are not
        finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import spartax as sx
      >>> from spartax import lowrank
      >>> apply = lambda params, x: x @ params["kernel"]
      >>> params = {"kernel": jnp.outer(jnp.arange(1.0, 9.0), jnp.arange(1.0, 7.0))}
      >>> rank_one = lowrank.factorize(lowrank.svd(), lowrank.fixed(1))
      >>> out = sx.compress(apply, params, rank_one, batches=[jnp.ones((1, 8))])
      >>> out.params["kernel"].left.shape, out.params["kernel"].right.shape
      ((8, 1), (1, 6))
      >>> sx.nbytes(params), sx.nbytes(out.params)
      (192, 56)
    """

    def init(params: Params, evidence: Evidence) -> tuple[Params, State]:
        weights = tree.pick(params, evidence.layouts)
        arrays = {path: _values(path, w) for path, w in weights.items()}
        chosen = fitting.choose(factorization, ranks, arrays, evidence)
        leaves = fitting.build(factorization, arrays, chosen, evidence)
        new = {p: Masked(leaf, weights[p].mask) if is_leaf(weights[p]) else leaf for p, leaf in leaves.items()}
        new = {p: leaf for p, leaf in new.items() if not is_leaf(weights[p]) or _smaller(leaf, weights[p])}
        chosen, leaves = ({p: kept[p] for p in new} for kept in (chosen, leaves))
        return tree.replace(params, new), State(chosen, fitting.unsettled(factorization, arrays, leaves, evidence))

    def update(params: Params, state: State, evidence: Evidence) -> tuple[Params, State, Info]:
        weights = tree.pick(params, evidence.layouts)
        before = evidence.originals or {}
        info = {
            path: fitting.report("factorize", state.chosen[path], w, before.get(path), state.unsettled.get(path))
            if path in state.chosen
            else fitting.skipped("factorize", factorization, dense(w), evidence.layouts[path])
            for path, w in weights.items()
        }
        return params, state, info

    return Transform(fitting.needs(factorization, ranks), init, update)


def _smaller(new: Masked, old: Masked) -> bool:
    """Whether it takes fewer bytes, both as they are stored."""
    return nbytes(pack(new)) < nbytes(pack(old))


def _values(path: Path, weight: Any) -> Any:
    if is_leaf(weight) and not isinstance(weight, Masked):
        raise ValueError(
            f"{path}: a {type(weight).__name__} cannot be factorized; factorize first, or add a low-rank correction "
            "with lowrank.compensate."
        )
    return dense(weight) if is_leaf(weight) else weight
