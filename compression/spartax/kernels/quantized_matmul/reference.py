"""The plain way: every weight in float32, then one product."""

import functools
import operator
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from spartax.kernels import bits as bits_kernel
from spartax.kernels import levels as number_formats
from spartax.kernels.quantized_matmul.form import Form, exact_length
from spartax.records import Array


def codes(data: Array, form: Form) -> Array:
    """The codes in order, int8 `[O, K]`."""
    if form.bits == 8:
        return data
    return (bits_kernel.unpack_bits(data, form.bits, -1, form.length).astype(jnp.int16) + form.low).astype(jnp.int8)


def weight(data: Array, scale: Array, zero: Array | None, form: Form) -> Array:
    """The matrix, float32 `[O, K]`."""
    values = number_formats.decode(codes(data, form), form.levels)
    spread = lambda v: jnp.repeat(v.astype(jnp.float32), form.length // v.shape[1], axis=1)  # noqa: E731
    return (values if zero is None else values - spread(zero)) * spread(scale)


def matmul(x: Array, data: Array, scale: Array, zero: Array | None, form: Form) -> Array:
    """`x @ w.T`: x `[M, K]` -> float32 `[M, O]`."""
    return jnp.dot(x.astype(jnp.float32), weight(data, scale, zero, form).T, precision=lax.Precision.HIGHEST)


def quantized_rows(x: Array) -> tuple[Array, Array]:
    """Each row of x `[M, K]` as int8 codes and a scale `[M, 1]`, `max|row| / 127` (1 for zeros, and for int8 rows).

    The scale of a row that is not finite is not finite; below the smallest normal number there is none.
    """
    if x.dtype == jnp.int8:
        return x, jnp.ones((x.shape[0], 1), jnp.float32)
    wide = x.astype(jnp.float32)
    most = jnp.max(jnp.abs(wide), axis=1, keepdims=True)
    scale = jnp.where(most == 0, 1.0, jnp.maximum(most / 127, jnp.finfo(jnp.float32).tiny))
    return jnp.round(wide / scale).astype(jnp.int8), scale


def code_sums(
    products: Callable[[Array, Array, Form], Array], rows: Array, data: Array, zero: Array | None, form: Form
) -> Array:
    """Sums of int8 rows `[M, K]` times codes less their zero points (one an output), float32 `[M, O]`.

    `products(rows, data, form)` are the int32 sums of rows and codes. Integers are exact; rows of more codes than int32
    holds for sure are cut, and their pieces added in float32.
    """
    most = exact_length(zero is not None)
    if form.length <= most:
        return _without_zeros(products(rows, data, form), rows, zero).astype(jnp.float32)
    cut = [(rows[:, own], part, piece) for own, part, piece in form.pieces(data, most)]
    return functools.reduce(operator.add, (code_sums(products, r, d, zero, f) for r, d, f in cut))


def _without_zeros(sums: Array, rows: Array, zero: Array | None) -> Array:
    """int32 sums `[M, O]` of int8 rows and codes, less what the zero points (one an output) gave to them.

    Either part may wrap around; the difference fits.
    """
    return sums if zero is None else sums - jnp.sum(rows.astype(jnp.int32), 1, keepdims=True) * zero.astype(jnp.int32).T


def int8_matmul(x: Array, data: Array, scale: Array, zero: Array | None, form: Form) -> Array:
    """The same with each row of x rounded to int8 codes: sums of products of codes are exact integers.

    With one scale an output that is all; with groups, the integer of each group is scaled and they are added. A group
    of more codes than int32 holds is cut, and its pieces are added in float32.
    """
    rows, row_scale = quantized_rows(x)
    width, most = form.length // scale.shape[1], exact_length(zero is not None)
    count = -(-width // most)

    def cut(v: Array) -> Array:
        """`[*, groups, pieces, codes]`, filled up with zeros."""
        v = v.astype(jnp.int32).reshape(v.shape[0], -1, width)
        return jnp.pad(v, ((0, 0), (0, 0), (0, -width % count))).reshape(*v.shape[:2], count, -1)

    left, right = cut(rows), cut(codes(data, form))
    sums = jnp.einsum("mgpk,ogpk->mogp", left, right)
    if zero is not None:
        sums = sums - jnp.sum(left, 3)[:, None] * zero.astype(jnp.int32)[:, :, None]
    totals = jnp.sum(sums.astype(jnp.float32), 3)
    return jnp.sum(totals * scale.astype(jnp.float32), 2) * row_scale
