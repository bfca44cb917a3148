"""Which units meet in a contraction."""

from typing import Any

import numpy as np

from spartax.program.units import Axes, Units

SPATIAL = "a spatial axis or a tap of a convolution"


def dot(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes]:
    """Contracted axes meet, batch axes meet, the others pass."""
    (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
    left, right = inputs
    for a, b in zip((*lc, *lb), (*rc, *rb)):
        units.tie(left[a], right[b])
    free = [a for i, a in enumerate(left) if i not in (*lc, *lb)] + [
        a for i, a in enumerate(right) if i not in (*rc, *rb)
    ]
    return [(*(left[a] for a in lb), *free)]


def conv(units: Units, eqn: Any, inputs: list[Axes]) -> list[Axes] | None:
    """Without groups, input channels meet the kernel's; with groups, whole groups are what can be cut."""
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    if eqn.params["batch_group_count"] != 1:
        return None
    x, kernel = inputs
    (batch, feature, *spatial), (out, inner, *taps) = numbers.lhs_spec, numbers.rhs_spec
    for axis in (*(x[a] for a in spatial), *(kernel[a] for a in taps)):
        units.freeze(axis, SPATIAL)
    if groups == 1:
        units.tie(x[feature], kernel[inner])
    else:
        units.freeze(kernel[inner], "channels inside a group of a convolution")
        group = units.fresh(groups)
        units.tie(x[feature], np.repeat(group, len(x[feature]) // groups))
        units.tie(kernel[out], np.repeat(group, len(kernel[out]) // groups))
    made = {numbers.out_spec[0]: x[batch], numbers.out_spec[1]: kernel[out]}
    shape = eqn.outvars[0].aval.shape
    return [tuple(made[i] if i in made else units.fixed(n, SPATIAL) for i, n in enumerate(shape))]
