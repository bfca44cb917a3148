"""One or more examples of every compressed leaf, for the contract suites."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

import spartax as sx
from spartax.arrays import block_sparse, nm_sparse, packed, permuted

DENSE, CONV = (12, 10), (3, 3, 4, 6)


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def codes_of(shape, bits, seed=1):
    top = 2 ** (bits - 1) - 1
    return jnp.asarray(np.random.default_rng(seed).integers(-top, top + 1, shape), jnp.int8)


def quantized(shape, bits=8, scale_shape=None, zero=False, seed=1):
    """Codes packed at their width below 8 bits; one scale an output column unless said otherwise."""
    scale_shape = scale_shape or (*(1,) * (len(shape) - 1), shape[-1])
    scale = jnp.abs(normal(*scale_shape, seed=seed)) + 0.1
    codes = codes_of(shape, bits, seed)
    offset = jnp.asarray(np.random.default_rng(seed).integers(-3, 4, scale_shape), jnp.int8) if zero else None
    return sx.Quantized(packed.pack_codes(codes, bits, -(2 ** (bits - 1))) if bits < 8 else codes, scale, offset)


def outputs_first(codes):
    return permuted.outputs_first(codes, (codes.ndim - 1,), tuple(range(codes.ndim - 1)))


def quantized_outputs_first(shape):
    leaf = quantized(shape, 4)
    codes = outputs_first(sx.dense(leaf.codes))
    packed_codes = packed.pack_codes(codes.value, 4, -8, -1)
    return dataclasses.replace(leaf, codes=sx.Permuted(packed_codes, codes.axes))


def masked(shape, kept=0.3, seed=2):
    return sx.Masked(normal(*shape, seed=seed), jax.random.uniform(jax.random.key(seed), shape) < kept)


def lowrank(shape, rank=3, seed=3):
    return sx.LowRank(normal(*shape[:-1], rank, seed=seed), normal(rank, shape[-1], seed=seed + 1))


def blocks(shape, block=(4, 5), kept=0.4, seed=6):
    """Random blocks, of the matrix with the last axis as columns; the last column of blocks is empty."""
    rows, columns = -(-int(np.prod(shape[:-1])) // block[0]), -(-shape[-1] // block[1])
    kept = np.random.default_rng(seed).random((rows, columns)) < kept
    kept[:, -1], kept[0, 0] = False, True
    matrix = np.kron(kept, np.ones(block, bool))[: int(np.prod(shape[:-1])), : shape[-1]]
    inputs = tuple(range(len(shape) - 1))
    return block_sparse(normal(*shape, seed=seed), matrix.reshape(shape), block, inputs, (len(shape) - 1,))


def groups(shape, n=1, m=4, seed=7):
    """The `n` largest of every `m` neighbours of the input, the last axis as columns."""
    rows = int(np.prod(shape[:-1]))
    rank = np.random.default_rng(seed).random((-(-rows // m), m, shape[-1])).argsort(axis=1).argsort(axis=1)
    mask = (rank < n).reshape(-1, shape[-1])[:rows].reshape(shape)
    return nm_sparse(normal(*shape, seed=seed), mask, n, m, tuple(range(len(shape) - 1)), (len(shape) - 1,))


def of_quantized(leaf):
    values = quantized(leaf.values.shape, scale_shape=(len(leaf.values), 1, 1))
    return dataclasses.replace(leaf, values=values)


def fake(shape, per=None):
    """4-bit steps of a learnt scale, some entries beyond the last code."""
    scale = jnp.abs(normal(*(per or (1,) * len(shape)), seed=3)) * 0.1 + 0.2
    return sx.arrays.FakeQuantized(normal(*shape), sx.arrays.LearntStep(scale, 4))


def fixed_point(shape, bits, point=4.3, **options):
    single = (1,) * len(shape)
    words = sx.arrays.FixedPoint(jnp.full(single, bits, jnp.int32), jnp.full(single, point), **options)
    return sx.arrays.FakeQuantized(normal(*shape), words)


def double_rounded(shape, bits):
    """int8 steps of which 3 standard deviations take all, read at fewer bits."""
    single = (1,) * len(shape)
    step = sx.arrays.SwitchedStep(jnp.full(single, 3 / 127), jnp.full(single, bits, jnp.int8))
    return sx.arrays.FakeQuantized(normal(*shape), step)


def fake_inputs(weight, quantizer=None):
    return sx.arrays.FakeInputs(weight, quantizer or sx.arrays.LearntStep(jnp.float32(0.3), 4, jnp.array(False)))


def convolutional(shape):
    """Leaves that only convolution kernels have."""
    height, width, inputs, outputs = shape
    ends = {"first": normal(inputs, 2, seed=4), "last": normal(3, outputs, seed=5)}
    thin = sx.arrays.Depthwise(normal(height, 3, seed=6), normal(width, 3, seed=7))
    halves = normal(height, inputs, 2, seed=8), normal(width, 2, outputs, seed=9)
    return {
        "Tucker": sx.Tucker(core=normal(height, width, 2, 3, seed=3), **ends),
        "Tucker of Depthwise": sx.Tucker(normal(inputs, 3, seed=4), thin, ends["last"]),
        "Separable": sx.arrays.Separable(*halves),
    }


@functools.cache
def examples(shape):
    """{name: leaf} of one dense shape whose last axis is the output and last but one the input feature."""
    low = lowrank(shape)
    grouped = (*shape[:-2], shape[-2] // 2, shape[-1])
    return {
        "Masked": masked(shape),
        "Masked packed mask": sx.Masked(normal(*shape), packed.pack_codes(masked(shape).mask, 1, 0)),
        "Masked of Quantized": sx.Masked(quantized(shape, 4), masked(shape).mask),
        "Masked of asymmetric": sx.Masked(quantized(shape, 4, zero=True), masked(shape).mask),
        "Bitmask": sx.pack(masked(shape)),
        "Quantized int8": quantized(shape),
        "Quantized per tensor": quantized(shape, scale_shape=(1,) * len(shape)),
        "Quantized int4 grouped": quantized(shape, 4, grouped),
        "Quantized int3 asymmetric": quantized(shape, 3, grouped, zero=True),
        "Quantized outputs first": quantized_outputs_first(shape),
        "BlockSparse": blocks(shape),
        "BlockSparse of Quantized": of_quantized(blocks(shape)),
        "NMSparse": groups(shape),
        "NMSparse of Quantized": of_quantized(groups(shape)),
        "LowRank": low,
        "LowRank of Quantized": sx.LowRank(quantized(low.left.shape, 4), quantized(low.right.shape)),
        "Scored": sx.Scored(normal(*shape), normal(*shape, seed=5), jnp.int32(np.prod(shape) // 3)),
        "Scored by value": sx.Scored(normal(*shape), normal(*shape, seed=5), jnp.int32(np.prod(shape) // 3), False),
        "Sum": sx.Sum((quantized(shape, 4, grouped), low)),
        "BlockDiagonal": sx.BlockDiagonal(normal(*grouped, seed=6), 2),
        **(convolutional(shape) if len(shape) == 4 else {}),
        "FakeQuantized": fake(shape),
        "FakeQuantized per channel": fake(shape, (*(1,) * (len(shape) - 1), shape[-1])),
        "FakeQuantized sign": sx.arrays.FakeQuantized(
            normal(*shape), sx.arrays.Sign(jnp.full((1,) * len(shape), 2 * 2**16), scaled=True)
        ),
        "Masked of FakeQuantized sign": sx.Masked(
            sx.arrays.FakeQuantized(
                normal(*shape), sx.arrays.Sign(jnp.full((1,) * len(shape), 2 * 2**16), scaled=True)
            ),
            masked(shape).mask,
        ),
        "FakeQuantized fixed point": fixed_point(shape, 6),
        "FakeQuantized 12-bit words": fixed_point(shape, 12, 9.0),
        "FakeQuantized 2-hot": fixed_point(shape, 8, 5.0, rounding="half_up", k_hot=2),
        "FakeQuantized double rounding": double_rounded(shape, 3),
        "DoubleRounded": sx.pack(double_rounded(shape, 4)),
        "DoubleRounded without zeros": sx.pack(sx.Masked(double_rounded(shape, 4), masked(shape).mask)),
        "FakeInputs of FakeQuantized": fake_inputs(fake(shape)),
        "FakeInputs clipped": fake_inputs(normal(*shape), sx.arrays.LearntClip(jnp.float32(1.5), 4)),
        "Thresholded": sx.Thresholded(normal(*shape), jnp.float32(1.02), -1, 2),
        "Twin": sx.arrays.Twin(normal(*shape), normal(*shape, seed=5)),
        "Pulled": sx.arrays.pulled.pulled(normal(*shape), normal(*shape, seed=5)),
        "TopOfGroups": sx.TopOfGroups(normal(*shape), 1, 2, -2),
        "QuantizedInputs": sx.QuantizedInputs(quantized(shape)),
        "QuantizedInputs static, of Masked": sx.QuantizedInputs(
            masked(shape), jnp.float32(0.02), jnp.int8(3), 7, False
        ),
        "Packed": packed.pack_codes(codes_of(shape, 4), 4, -8),
        "Permuted": outputs_first(codes_of(shape, 8)),
    }
