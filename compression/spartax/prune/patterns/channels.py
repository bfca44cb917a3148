"""Channels: whole features of a layer, which can then be cut out of the network."""

from spartax import checks
from spartax.prune.patterns._units import Units, reduction
from spartax.prune.patterns.columns import columns
from spartax.records import Pattern


def channels(of: str = "outputs", reduce: str = "mean") -> Pattern:
    """Keeps whole channels: the filters of a convolution and the units of a Dense layer.

    `keep` counts entries, as in `block`. See Li et al., Pruning Filters for Efficient ConvNets, arXiv 1608.08710 (with
    `prune.magnitude()`, whose mean over a filter is its L1 norm over its size).

    Args:
      of: `"outputs"`, all weights that lead to one output channel, or `"inputs"`, all weights that read one input
        feature, every spatial position included.
      reduce: score of a channel: the `"mean"` or the `"sum"` of its entries'.

    Raises:
      ValueError: another value of `of` or reduction.
    """
    checks.one_of("of", of, ("outputs", "inputs"))
    if of == "outputs":
        return columns(reduce)
    return Units(lambda inputs, outputs, spatial: (spatial, outputs), reduction(reduce), features_first=True)
