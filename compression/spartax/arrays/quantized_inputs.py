"""`QuantizedInputs`: a weight whose every activation is rounded to integer codes before they meet."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spartax.arrays import around, quantized_rows, verbs
from spartax.arrays.quantized import Quantized
from spartax.arrays.use import Use
from spartax.kernels import levels as number_formats
from spartax.kernels.derivatives import with_derivative_of
from spartax.kernels.uniform import Uniform
from spartax.records import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedInputs(verbs.Leaf):
    """`dense = dense(weight)`; a contraction with activation x is that of the weight with x rounded to `bits`.

    Static scales are stored, one for the whole activation. Dynamic ones are read off each activation: `per="token"`
    gives every row of a dot product and every image of a convolution its own, `per="tensor"` shares one, so that the
    result for an example depends on the rest of its batch. Where the program makes the weight dense (`explain` says
    where), activations stay as they are.

    The derivative goes straight through the rounding: 1 where the code is not clipped and 0 where it is, nothing for
    dynamic scales; a static scale has the gradient of LSQ. It is that of the weight's own rule at the rounded input.

    Attributes:
      weight: array or leaf.
      scale: static scale `[*stack]` (`[]` without a stack of layers); None if dynamic.
      zero: zero point in code units, int8 of the same shape; None if symmetric or dynamic.
      bits: 2 to 8.
      symmetric: as in `kernels.uniform.Uniform`.
      per: "tensor" or "token": the entries that share a dynamic scale.
    """

    weight: Any
    scale: Array | None = None
    zero: Array | None = None
    bits: int = dataclasses.field(default=8, metadata={"static": True})
    symmetric: bool = dataclasses.field(default=True, metadata={"static": True})
    per: str = dataclasses.field(default="token", metadata={"static": True})

    @property
    def grid(self) -> Uniform:
        """Which integers are codes."""
        return Uniform(self.bits, self.symmetric)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(self.weight.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the weight."""
        return verbs.float_dtype(self.weight)

    @property
    def stack(self) -> int:
        """Leading axes that index layers, each with its own static scale."""
        return 0 if self.scale is None else self.scale.ndim


class Scales(NamedTuple):
    """Scale and zero point (None if symmetric) that spread over an activation."""

    scale: Array
    zero: Array | None


def scales(leaf: QuantizedInputs, use: Use, x: Array) -> Scales:
    """How this leaf rounds this activation: arrays with as many axes as x, or none."""
    if leaf.scale is not None:
        zero = None if leaf.zero is None else around.over_batch(leaf.zero.astype(x.dtype), use, x.ndim)
        return Scales(around.over_batch(leaf.scale.astype(x.dtype), use, x.ndim), zero)
    x = lax.stop_gradient(x)
    axes = _shared(use, x.ndim, leaf.per)
    reduce = lambda f: f(x, axis=axes, keepdims=True, initial=0)  # noqa: E731
    return Scales(*leaf.grid.fit(reduce(jnp.min), reduce(jnp.max)))


def _shared(use: Use, ndim: int, per: str) -> tuple[int, ...]:
    """Axes of the activation along which entries share a scale; weights of a stack never do."""
    if use.op == "conv_general_dilated":
        image = use.params["dimension_numbers"].lhs_spec[0]
        return tuple(a for a in range(ndim) if per == "tensor" or a != image)
    _, contracted, _, stack = use.dims
    return contracted if per == "token" else tuple(a for a in range(ndim) if a not in stack)


def _rounds(use: Use) -> bool:
    return jnp.issubdtype(use.x.dtype, jnp.floating)


def _integer_rows(leaf: QuantizedInputs, use: Use) -> quantized_rows.Rows | None:
    """The codes of the weight, where the product can be one of integers."""
    weight = leaf.weight
    if not isinstance(weight, Quantized) or weight.levels != "integer":
        return None
    if weight.zero is not None and not number_formats.is_integer(weight.zero):
        return None
    if not leaf.symmetric and any(sum(map(abs, pad)) for pad in use.params.get("padding", ())):
        return None  # zeros around the image are not code zero
    found = quantized_rows.read(weight, use)
    if isinstance(found, str) or quantized_rows.choose(weight, found, use, int8=True).path is None:
        return None
    return found


@verbs.plan.register
def _(leaf: QuantizedInputs, use: Use) -> verbs.Plan:
    inner = around.inner_plan(leaf, use)
    if not _rounds(use):
        return inner
    how = "static" if leaf.scale is not None else f"dynamic per {leaf.per}"
    name = f"QuantizedInputs: {leaf.bits}-bit {how}"
    found = _integer_rows(leaf, use)
    if found is None:
        return verbs.Plan(f"{name}, then {inner.kernel or 'the dense weight'}", inner.why, inner.macs)
    path, why = quantized_rows.choose(leaf.weight, found, use, int8=True)
    # only the plain path adds up integers in groups
    kind = "float product of codes" if found.groups > 1 and path != "reference" else "integer product"
    return verbs.Plan(f"{name} x {found.form.bits}-bit {kind} [{path}]", why, use.macs)


@verbs.contract.register
def _(leaf: QuantizedInputs, use: Use, x: Array) -> Array:
    if not _rounds(use):
        return verbs.product(leaf.weight, use, x)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    own = scales(leaf, use, wide)
    codes = leaf.grid.encode(wide, *own)
    smooth = verbs.product(leaf.weight, use, leaf.grid.decode(codes, *own).astype(x.dtype))
    found = _integer_rows(leaf, use)
    if found is None:
        return smooth
    codes = lax.stop_gradient(codes)
    lost = jnp.any(jnp.isnan(codes), axis=_shared(use, x.ndim, "token"), keepdims=True)  # there is no such int8 code
    own = own._replace(scale=jnp.where(lost, jnp.nan, own.scale))
    value = _integer_product(leaf.weight, found, use, codes.astype(jnp.int8), own)
    return with_derivative_of(smooth, value.astype(use.out.dtype))


def _integer_product(weight: Quantized, found: quantized_rows.Rows, use: Use, codes: Array, own: Scales) -> Array:
    """`(codes - zero) * scale` times the weight, float32: products of codes, then zero points and scales outside."""
    use = use._replace(out=jax.ShapeDtypeStruct(use.out.shape, jnp.float32))
    out = quantized_rows.multiply(weight, found, use, codes)
    if own.zero is not None:
        out = out - _over_output(own.zero, use) * _column_sums(weight, found, use)
    return out * _over_output(own.scale, use)


def _column_sums(weight: Quantized, found: quantized_rows.Rows, use: Use) -> Array:
    """The weight summed over its inputs, to be spread over the result: its product with one row of ones."""
    if use.op == "conv_general_dilated":
        keep = {use.params["dimension_numbers"].lhs_spec[1]}
    else:
        keep = {*use.dims[1], *use.dims[3]}
    ones = jnp.ones([n if a in keep else 1 for a, n in enumerate(use.x.shape)], jnp.int8)
    like = jax.ShapeDtypeStruct(ones.shape, use.x.dtype)
    short = Use.of(use.primitive, use.params, use.left, use.weight, like)
    wide = jax.ShapeDtypeStruct(short.out.shape, jnp.float32)
    return quantized_rows.multiply(weight, found, short._replace(out=wide), ones)


def _over_output(value: Array, use: Use) -> Array:
    """Values that spread over the activation, in the axes of the result."""
    if not value.ndim:
        return value
    if use.op == "conv_general_dilated":
        numbers = use.params["dimension_numbers"]
        return jnp.moveaxis(value, numbers.lhs_spec[0], numbers.out_spec[0])
    _, contracted, _, stack = use.dims
    free = tuple(a for a in range(value.ndim) if a not in contracted + stack)
    value = jnp.transpose(value, (*stack, *free, *contracted))
    rows, units = [value.shape[i] for i in range(len(stack), len(stack) + len(free))], [1] * len(use.layout.outputs)
    return value.reshape(*value.shape[: len(stack)], *(units + rows if use.left else rows + units))


@verbs.sliceable.register
def _(leaf: QuantizedInputs) -> bool:
    return (leaf.scale is None or leaf.scale.ndim > 0) and verbs.sliceable(leaf.weight)


around.register(QuantizedInputs)
