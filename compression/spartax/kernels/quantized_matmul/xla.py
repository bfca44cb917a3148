"""The way that XLA runs well: a few hundred outputs at a time, so that float weights never leave the cache.

On CPU three things matter. The block of weights must be the left operand and the contracted axis the last of both.
Codes below 8 bits are multiplied plane by plane (`kernels.bits.planes`), which needs no shuffling of weights, only of
columns of the activation. And an int8 product must see its operands as they lie in memory: a transpose that XLA folds
into it sends it to a path twenty times slower, hence the barriers.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from spartax.kernels import levels as number_formats
from spartax.kernels.derivatives import with_derivative_of
from spartax.kernels.quantized_matmul.form import Form, exact_length
from spartax.kernels.quantized_matmul.reference import code_sums, quantized_rows
from spartax.records import Array

BASE = 254.0
DIGITS = 3
DIGIT_ROWS = 4  # of x; measured faster than float blocks up to here
SPREAD = 64.0  # largest over mean size in a row; at 64, digits are off by as much as a float32 sum of 4096 terms
LEAST = 2.0**-100  # of the largest entry of a row: below it the scales of digits get lost among subnormal numbers


class Tuning(NamedTuple):
    """How the work is cut.

    Attributes:
      entries: float weights made at a time.
      left: whether an int8 product has the weight on the left.
    """

    entries: int
    left: bool


def tuning(rows: int) -> Tuning:
    """Measured on two x86 cores with 1 MB of L2 cache each, for x of this many rows."""
    return Tuning(entries=2**21, left=rows <= 32)


def matmul(x: Array, data: Array, scale: Array, zero: Array | None, form: Form) -> Array:
    """`x @ w.T`: x `[M, K]` -> float32 `[M, O]`; differentiable in x and scale in either mode.

    A few rows of even size are multiplied as integer digits; with an outlier, or a number that is not finite, in one of
    them, all are multiplied as floats.
    """
    smooth = _by_blocks(x, data, scale, zero, form)
    whole = form.levels == "integer" and (zero is None or number_formats.is_integer(zero))
    if x.shape[0] > DIGIT_ROWS or scale.shape[1] > 1 or not whole or form.length > exact_length(zero is not None):
        return smooth
    ways = [functools.partial(way, form=form) for way in (_by_digits, _by_blocks)]
    return with_derivative_of(smooth, lax.cond(_even(x), *ways, *lax.stop_gradient((x, data, scale, zero))))


def _even(x: Array) -> Array:
    """Whether digits hold every row: it is all zero, or finite with entries that are not too unlike or too small."""
    size = jnp.abs(lax.stop_gradient(x).astype(jnp.float32))
    most, filled = jnp.max(size, 1), jnp.sum(size > 0, 1)
    usual = (most >= LEAST) & (most < jnp.inf) & (most * filled <= SPREAD * jnp.sum(size, 1))
    return jnp.all(usual | (most == 0))


def _by_digits(x: Array, data: Array, scale: Array, zero: Array | None, form: Form) -> Array:
    """Each row of x as three int8 digits of base 254, 24 bits below its largest entry, out of integer products.

    `x = row_scale * (d0 + d1 / 254 + d2 / 254**2)`, off by at most `2**-23 max|x|`, so that results are off by that
    times `sum |w|`, and by a few roundings of their own. A few rows are bound by the bytes of the weights, and integer
    products read them as they are.
    """
    _, row_scale = quantized_rows(x)
    rest, digits = x.astype(jnp.float32) / row_scale, []
    for _ in range(DIGITS):
        digits.append(jnp.round(rest))
        rest = (rest - digits[-1]) * BASE
    sums = code_sums(_integer_products, jnp.concatenate(digits).astype(jnp.int8), data, zero, form)
    place = jnp.asarray([BASE**-i for i in range(DIGITS)], jnp.float32)
    return jnp.tensordot(place, sums.reshape(DIGITS, *x.shape[:1], -1), 1) * scale.T * row_scale


def _by_blocks(x: Array, data: Array, scale: Array, zero: Array | None, form: Form) -> Array:
    """A block of outputs at a time in floats; gradients make the weights of a block anew instead of keeping them.

    Off by at most about `2**-24 K sum |x| (|c| + |z|) s`: a zero point for each output is taken off afterwards.
    """
    columns = [c.astype(_kind(x, scale, form)) for c in form.columns(x, scale.shape[1])]
    total = jnp.sum(x.astype(jnp.float32), 1)

    def block(data: Array, scale: Array, zero: Array | None) -> Array:
        if scale.shape[1] > 1:
            return _products(form.weights(data, scale, zero), columns, jnp.float32)
        values = [number_formats.decode(p, form.levels) for p in form.planes(data, 1)]
        sums = _products(values, columns, jnp.float32)
        if zero is not None:
            sums = sums - zero.astype(jnp.float32) * total
        return sums * scale

    return by_rows(jax.checkpoint(block), (data, scale, zero), tuning(x.shape[0]).entries // form.length).T


def _kind(x: Array, scale: Array, form: Form) -> jnp.dtype:
    """bfloat16 where it holds every code and the scale comes after the product, else float32."""
    exact = scale.shape[1] == 1 and form.levels in ("integer", "e2m1")
    return jnp.dtype(jnp.bfloat16 if exact and x.dtype == jnp.bfloat16 else jnp.float32)


def _products(weights: list[Array], columns: list[Array], kind: Any) -> Array:
    """Sum over the planes of `[R, K], [M, K] -> [R, M]`."""
    dims = (((1,), (1,)), ((), ()))
    products = [
        lax.dot_general(w.astype(x.dtype), x, dims, preferred_element_type=kind) for w, x in zip(weights, columns)
    ]
    return functools.reduce(operator.add, products)


def by_rows(block: Callable[..., Array], arrays: tuple, rows: int) -> Array:
    """`block` of all rows of the arrays, `rows` (or a few less) at a time: `[O, ...] -> [O, M]`."""
    count = arrays[0].shape[0]
    rows = min(max(rows, 8), count)
    rows = next((r for r in range(rows, rows // 2, -1) if count % r == 0), rows)
    whole = count // rows
    if whole == 1 and count == rows:
        return block(*arrays)
    split = jax.tree.map(lambda a: a[: whole * rows].reshape(whole, rows, *a.shape[1:]), arrays)
    out = lax.map(lambda a: block(*a), split).reshape(whole * rows, -1)
    if whole * rows == count:
        return out
    return jnp.concatenate([out, block(*jax.tree.map(lambda a: a[whole * rows :], arrays))])


def int8_matmul(x: Array, data: Array, scale: Array, zero: Array | None, form: Form) -> Array:
    """The same with each row of x rounded to int8 codes; the derivative is that of `matmul`, as if x were not rounded.

    With one scale an output the products of codes are added exactly in int32 (`code_sums`); with groups in float32.
    """
    rows, row_scale = quantized_rows(lax.stop_gradient(x))
    if scale.shape[1] > 1:
        value = _by_blocks(rows.astype(jnp.float32), data, scale, zero, form) * row_scale
    else:
        value = code_sums(_integer_products, rows, data, zero, form) * scale.T * row_scale
    return with_derivative_of(_by_blocks(x, data, scale, zero, form), value)


def _integer_products(rows: Array, data: Array, form: Form) -> Array:
    """Exact int32 `[M, O]` of int8 rows `[M, K]` and the codes."""
    count, plan = rows.shape[0], tuning(rows.shape[0])
    rows = jnp.pad(rows, ((0, count == 1), (0, 0)))  # one row alone takes a slow path on CPU
    columns = [lax.optimization_barrier(c) for c in form.columns(rows, 1)]
    block = lambda data: _products(form.planes(data, 1), columns, jnp.int32)  # noqa: E731
    if form.bits == 8 and not plan.left:
        return lax.optimization_barrier(_products(columns, [data], jnp.int32))[:count]
    size = data.shape[0] if form.bits == 8 else plan.entries // form.length
    return lax.optimization_barrier(by_rows(block, (data,), size)).T[:count]
