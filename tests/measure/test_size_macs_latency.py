import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import measure
from spartax.arrays import LowRank, Masked, Quantized, Sum, dense
from spartax.arrays.packed import pack_codes

rng = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def mask(shape, kept):
    flat = np.zeros(int(np.prod(shape)), bool)
    flat[:kept] = True
    return jnp.asarray(rng.permutation(flat).reshape(shape))


def params():
    codes = jnp.asarray(rng.integers(1, 8, (16, 10)), jnp.int8)
    int4 = Quantized(pack_codes(codes, 4, -8), jnp.abs(normal(4, 10)) + 0.1)
    return {
        "conv": {"kernel": Masked(normal(3, 3, 2, 8), mask((3, 3, 2, 8), 14)), "bias": normal(8)},
        "low": LowRank(normal(32, 2), normal(2, 16)),
        "sum": Sum((int4, LowRank(normal(16, 1), normal(1, 10)))),
    }


def apply(p, x):
    y = jax.lax.conv_general_dilated(x, p["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = (y + p["conv"]["bias"]).reshape(x.shape[0], -1)  # [B, 4 * 4 * 8]
    return y.reshape(-1, 4, 32).sum(1) @ p["low"] @ p["sum"]


def test_sizes_are_the_bytes_by_hand():
    found = measure.sizes(params())
    assert {path: (size.dense, size.packed) for path, size in found.items()} == {
        "conv/kernel": (4 * 144, 14 * 4 + 144 // 8),  # values and a bit for each entry
        "conv/bias": (32, 32),
        "low": (4 * 512, 4 * (64 + 32)),
        "sum": (4 * 160, 160 // 2 + 4 * 40 + 4 * (16 + 10)),  # codes, scales, factors
    }
    assert found["conv/kernel"].sparsity == pytest.approx(130 / 144)
    assert found["low"].sparsity == 0.0


def test_summary_is_one_aligned_line_for_every_weight():
    lines = measure.summary(params()).splitlines()
    assert lines[0].split() == ["weight", "stored", "as", "shape", "bytes", "dense", "bytes", "packed", "sparsity"]
    by_path = {line.split()[0]: line for line in lines[1:]}
    assert list(by_path) == ["conv/bias", "conv/kernel", "low", "sum", "total"]
    assert " ".join(by_path["conv/kernel"].split()) == "conv/kernel Masked 3 x 3 x 2 x 8 576 74 90.3%"
    assert "Sum(Quantized(4-bit), LowRank)" in by_path["sum"]
    assert by_path["total"].split()[-3:-1] == ["3,296", "834"]
    assert len({len(line) for line in lines}) == 1  # aligned: the last column ends in one place


def test_macs_by_hand():
    x = jax.ShapeDtypeStruct((6, 4, 4, 2), jnp.float32)
    found = measure.macs(apply, params(), x)
    assert found.by_path["conv/kernel"] == (16 * 144, 16 * 144, 16 * 14)  # unstructured zeros are not skipped
    assert found.by_path["low"] == (32 * 16, 2 * (32 + 16), 2 * (32 + 16))
    assert found.by_path["sum"][0] == 160
    assert found.by_path["conv/bias"] == (0, 0, 0)
    assert found.dense == 16 * 144 + 512 + 160
    assert found.nonzero <= found.run


def test_macs_of_dense_params_count_zeros_as_work():
    found = measure.macs(apply, dense(params()), jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32))
    assert found.dense == found.run == 16 * 144 + 512 + 160
    assert found.nonzero == 16 * 14 + 512 + 160


def test_latency_is_measured_in_turns_and_without_warm_up():
    calls = []

    def work(name, seconds):
        calls.append(name)
        time.sleep(seconds)
        return jnp.zeros(1)

    functions = {"slow": functools.partial(work, "slow", 0.004), "fast": functools.partial(work, "fast", 0.0)}
    found = measure.latency(functions, warmups=2, repeats=6)
    assert len(calls) == 2 * 8
    assert all({calls[i], calls[i + 1]} == {"slow", "fast"} for i in range(0, 16, 2))
    assert calls[:4] in (["fast", "slow", "slow", "fast"], ["slow", "fast", "fast", "slow"])
    for latency in found.values():
        assert latency.repeats == 6
        assert latency.low <= latency.median <= latency.high
    assert found["slow"].median >= 0.004
    assert found["slow"].median > found["fast"].median


def test_latency_refuses_too_few_calls():
    with pytest.raises(ValueError, match="repeats must be an integer of at least 2; got 1"):
        measure.latency({"f": lambda: 0}, repeats=1)
    with pytest.raises(ValueError, match="at least one function"):
        measure.latency({})
