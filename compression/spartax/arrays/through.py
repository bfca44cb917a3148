"""Rounded activations whose whole gradient passes: attacks are not fooled by what rounding and clipping hide."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from spartax.arrays.fake_inputs import FakeInputs
from spartax.arrays.quantized_inputs import QuantizedInputs
from spartax.kernels.derivatives import with_derivative_of
from spartax.kernels.uniform import Uniform
from spartax.records import Array, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Through:
    """`quantizer(x)` with the derivative of x: nothing is lost where codes are clipped or an estimator ends.

    Attributes:
      quantizer: of activations, as in `FakeInputs`.
    """

    quantizer: Any

    def __call__(self, x: Array, features: int) -> Array:
        """The rounded activation."""
        wide = x.astype(jnp.float32)
        return with_derivative_of(wide, self.quantizer(wide, features).astype(jnp.float32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Static:
    """The codes of `QuantizedInputs` with a static scale, as numbers."""

    scale: Array
    zero: Array | None
    grid: Uniform = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Array, features: int) -> Array:
        del features
        own = self.scale.astype(x.dtype), None if self.zero is None else self.zero.astype(x.dtype)
        return self.grid.decode(self.grid.encode(x, *own), *own)


def straight_through_inputs(params: Params) -> Params:
    """The params whose rounding of activations has the derivative of the identity (arXiv 1802.00420), values the same.

    `FakeInputs` and `QuantizedInputs` with a static scale are changed. A dynamic scale clips nothing, so that the
    derivative of `QuantizedInputs` is this one already; rounding of weights has no part in the gradient of images.
    A network with nothing to change gets the same tree structure back.
    """
    return jax.tree.map(_passing, params, is_leaf=_rounds)


def rounds_inputs(params: Params) -> bool:
    """Whether any weight rounds the activations it meets: its dense form is then another function."""
    return any(_rounds(x) for x in jax.tree.leaves(params, is_leaf=_rounds))


def _rounds(x: Any) -> bool:
    return isinstance(x, FakeInputs | QuantizedInputs)


def _passing(x: Any) -> Any:
    if isinstance(x, FakeInputs):
        return dataclasses.replace(x, quantizer=Through(x.quantizer))
    if isinstance(x, QuantizedInputs) and x.scale is not None:
        return FakeInputs(x.weight, Through(_Static(x.scale, x.zero, x.grid)))
    return x
