"""`Use`: one place in a program where a weight meets an activation."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import primitives

from spartax.records import Array, Layout


class Use(NamedTuple):
    """One contraction of a weight with an activation, as the program writes it.

    Attributes:
      primitive: the JAX primitive (`dot_general`, `conv_general_dilated`).
      params: its parameters.
      left: whether the weight is the left operand.
      weight: shape and dtype of the weight at this place (after transposes and casts).
      x: shape and dtype of the other operand.
      out: shape and dtype of the result.
      trips: how often the place runs (the length of the enclosing scans).
    """

    primitive: Any
    params: dict[str, Any]
    left: bool
    weight: jax.ShapeDtypeStruct
    x: jax.ShapeDtypeStruct
    out: jax.ShapeDtypeStruct
    trips: int = 1

    @classmethod
    def of(cls, primitive: Any, params: dict, left: bool, weight: Any, x: Any, trips: int = 1) -> "Use":
        """Read the use of `weight` with activation `x`; only shapes and dtypes are looked at."""
        w, a = (jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (weight, x))
        out = jax.eval_shape(lambda *v: primitive.bind(*v, **params), *((w, a) if left else (a, w)))
        return cls(primitive, params, left, w, a, out, trips)

    @classmethod
    def of_dot(cls, weight: Any, x: Any, dims: Any) -> "Use":
        """The use `lax.dot_general(x, weight, dims)`."""
        params = {
            "dimension_numbers": dims,
            "precision": None,
            "preferred_element_type": jnp.result_type(x.dtype, weight.dtype),
            "out_sharding": None,
        }
        return cls.of(primitives.dot_general_p, params, False, weight, x)

    @property
    def op(self) -> str:
        """Name of the primitive."""
        return self.primitive.name

    @property
    def dims(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Of a `dot_general`: contracted axes of the weight and of x, batch axes of the weight and of x."""
        (lc, rc), (lb, rb) = self.params["dimension_numbers"]
        wc, xc, wb, xb = (lc, rc, lb, rb) if self.left else (rc, lc, rb, lb)
        return tuple(wc), tuple(xc), tuple(wb), tuple(xb)

    @property
    def layout(self) -> Layout:
        """Which axes of the weight are contracted, which become outputs."""
        if self.op == "conv_general_dilated":
            out_axis, in_axis, *spatial = self.params["dimension_numbers"].rhs_spec
            return Layout((*spatial, in_axis), (out_axis,), (), self.params["feature_group_count"])
        contracted, _, batch, _ = self.dims
        outputs = tuple(a for a in range(len(self.weight.shape)) if a not in contracted + batch)
        return Layout(contracted, outputs, batch)

    @property
    def macs(self) -> int:
        """Multiply-adds of the dense computation over the whole batch: outputs times contracted sizes."""
        return self.trips * math.prod(self.out.shape) * math.prod(self.weight.shape[a] for a in self.layout.inputs)

    def apply(self, weight: Array, x: Array) -> Array:
        """The dense computation."""
        return self.primitive.bind(*((weight, x) if self.left else (x, weight)), **self.params)
