"""What meets a weight in a contraction and what comes out, as vectors."""

import math

import jax.numpy as jnp
from jax import lax

from spartax.arrays.use import Use
from spartax.records import Array


def inputs_of(use: Use, x: Array) -> Array:
    """The activation that meets a weight, float32 with the stack in front: `[*stack, ...]`."""
    x = x.astype(jnp.float32)
    if use.op == "conv_general_dilated":
        return x
    stack = use.dims[3]
    return jnp.moveaxis(x, stack, tuple(range(len(stack))))


def input_rows(use: Use, x: Array) -> Array:
    """The input vectors of a contraction, float32 `[*stack, N, I]`, features in the order of `use.layout.inputs`.

    Image patches for a convolution, `[groups, N, I]` for a grouped one.
    """
    x = x.astype(jnp.float32)
    if use.op == "conv_general_dilated":
        return _patches(use, x)
    _, contracted, _, batch = use.dims
    free = tuple(a for a in range(x.ndim) if a not in contracted + batch)
    x = jnp.transpose(x, (*batch, *free, *contracted))
    return x.reshape(*x.shape[: len(batch)], -1, math.prod(use.x.shape[a] for a in contracted))


def _patches(use: Use, x: Array) -> Array:
    numbers, groups = use.params["dimension_numbers"], use.params["feature_group_count"]
    window = tuple(use.weight.shape[a] for a in numbers.rhs_spec[2:])
    patches = lax.conv_general_dilated_patches(
        x,
        window,
        use.params["window_strides"],
        use.params["padding"],
        use.params["lhs_dilation"],
        use.params["rhs_dilation"],
        dimension_numbers=numbers,
        precision=lax.Precision.HIGHEST,
    )
    patches = jnp.moveaxis(patches, numbers.out_spec[1], -1)  # [..., channel * window]
    patches = patches.reshape(-1, groups, x.shape[numbers.lhs_spec[1]] // groups, math.prod(window))
    rows = jnp.transpose(patches, (1, 0, 3, 2)).reshape(groups, patches.shape[0], -1)
    return rows if groups > 1 else rows[0]


def output_rows(use: Use, out: Array) -> Array:
    """The output vectors of a contraction, float32 `[*stack, N, O]`; `[groups, N, O / groups]` for a grouped one."""
    out = out.astype(jnp.float32)
    if use.op == "conv_general_dilated":
        groups = use.params["feature_group_count"]
        rows = jnp.moveaxis(out, use.params["dimension_numbers"].out_spec[1], -1)
        rows = jnp.swapaxes(rows.reshape(-1, groups, rows.shape[-1] // groups), 0, 1)
        return rows if groups > 1 else rows[0]
    stack, outputs = len(use.layout.stack), len(use.layout.outputs)
    if use.left:  # [*batch, *outputs, *free]
        own = tuple(range(stack, stack + outputs))
        out = jnp.transpose(out, (*range(stack), *range(stack + outputs, out.ndim), *own))
    return out.reshape(*out.shape[:stack], -1, math.prod(out.shape[out.ndim - outputs :]))
