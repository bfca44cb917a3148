"""N:M sparsity: n entries of every m neighbours, which hardware can skip."""

from typing import NamedTuple

from spartax import checks
from spartax.kernels import groups
from spartax.records import Array, Layout, Pattern


def n_of_m(n: int = 2, m: int = 4) -> Pattern:
    """Keeps the `n` largest scores in every group of `m` consecutive entries along the input-feature axis.

    The axis is `layout.inputs[-1]`: `in` of a Dense kernel, `I` of a convolution for each (h, w, o). Ties go to the
    lower index. See Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378.

    Args:
      n: kept entries of a group, 1 to m.
      m: size of a group.

    Raises:
      ValueError: bad n or m; at use, an axis that m does not divide, or a count other than n / m of the weight.
    """
    checks.positive_int("m", m)
    checks.positive_int("n", n)
    if n > m:
        raise ValueError(f"n must be at most m = {m}; got {n}.")

    return _Groups(n, m)


class _Groups(NamedTuple):
    """The pattern; a value, so that its fixed sparsity can be asked for."""

    n: int
    m: int

    @property
    def sparsity(self) -> float:
        """The removed fraction, which is fixed."""
        return 1 - self.n / self.m

    @property
    def span(self) -> int:
        """A group is decided at once."""
        return self.m

    def __call__(self, score: Array, keep: int, layout: Layout) -> Array:
        n, m = self
        axis = layout.inputs[-1] if layout.inputs else 0
        if score.shape[axis] % m:
            raise ValueError(f"n_of_m({n}, {m}) needs an input axis divisible by {m}; got {score.shape[axis]}.")
        if checks.is_concrete(keep) and int(keep) * m != score.size * n:
            raise ValueError(f"n_of_m({n}, {m}) keeps {score.size * n // m} of {score.size} weights, not {keep}.")
        return groups.top_of_groups(score, n, m, axis)
