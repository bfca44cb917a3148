"""What every grid obeys: its codes are numbers, stored at their width."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spartax as sx
from spartax import catalog, checkpoint, quantize
from spartax.kernels import levels
from spartax.kernels.bits import packed_length
from spartax.quantize.records import Grid
from spartax.records import Evidence, Layout
from tests import plugs

GIVEN = Evidence({"w": Layout((0,), (1,))})
EXTRA = {f"int{bits}": quantize.integer(bits) for bits in (2, 3, 5, 6, 7)}
EXTRA |= {f"int{bits} asymmetric": quantize.integer(bits, symmetric=False) for bits in (5, 6, 7, 8)}
GRIDS = {**plugs.GRIDS, **EXTRA, "e4m3": quantize.fp8(), "power of two, 5 bits": quantize.power_of_two(5)}


@pytest.mark.parametrize("name", catalog.names(quantize.grids))
def test_defaults(name):
    grid = catalog.load(quantize.grids, name)()
    assert isinstance(grid, Grid)
    assert hash(grid) == hash(catalog.load(quantize.grids, name)())
    assert grid.levels in levels.LEVELS
    assert grid.calibration in catalog.names(quantize.calibrations)


@pytest.mark.parametrize("name", GRIDS)
def test_every_code_is_the_nearest_of_its_own_number(name):
    grid = GRIDS[name]
    least, most = grid.codes
    assert grid.low <= least
    assert most < grid.low + 2**grid.bits
    codes = jnp.arange(least, most + 1).astype(jnp.int8)
    numbers = np.asarray(levels.decode(codes, grid.levels))
    real = np.isfinite(numbers)  # bit patterns of infinity and of no number are never made
    again = levels.encode(jnp.asarray(numbers[real]), grid.levels, grid.codes)
    np.testing.assert_array_equal(levels.decode(again, grid.levels), numbers[real])
    assert numbers[real].max() == grid.largest
    assert (0 in numbers[real]) == (grid.levels != "binary")


@pytest.mark.parametrize("name", GRIDS)
def test_storage_is_the_packed_width_and_bit_exact(name):
    """By hand: packed codes, one scale a block, one zero point a block where there are any."""
    grid = GRIDS[name]
    weight = jnp.asarray(np.random.default_rng(3).normal(size=(48, 6)), jnp.float32)
    params, info = plugs.run(quantize.quantize(grid), {"w": weight}, GIVEN)
    leaf, blocks = params["w"], int(np.prod(grid.scale_shape((48, 6), GIVEN.layouts["w"])))
    scale = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1}[grid.scale_dtype]
    zero = {None: 0, "int8": 1, "float16": 2}[grid.zero]
    assert sx.nbytes(leaf) == 6 * packed_length(48, grid.bits) + blocks * (scale + zero)
    plain = dataclasses.replace(leaf, codes=sx.dense(leaf.codes))
    np.testing.assert_array_equal(plugs.dense(leaf), plugs.dense(plain))
    error = np.linalg.norm(np.asarray(plugs.dense(leaf)) - weight) / np.linalg.norm(weight)
    np.testing.assert_allclose(info["w"]["relative_error"], error, rtol=1e-4)
    assert info["w"]["bits"] == grid.bits
    assert info["w"]["levels"] == grid.levels


def test_on_disk_every_grid_has_its_size_and_its_bits(tmp_path):
    """One checkpoint of all: codes, scales and zero points by hand, and a little for the description.

    What is written may be compressed once more, but no code of independent entries gets below their entropy.
    """
    weight = jnp.asarray(np.random.default_rng(4).normal(size=(1024, 96)), jnp.float32)
    params, size, least = {}, 0, 0.0
    for name, grid in GRIDS.items():
        params[name] = plugs.run(quantize.quantize(grid), {"w": weight}, GIVEN)[0]["w"]
        each = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1}[grid.scale_dtype]
        each += {None: 0, "int8": 1, "float16": 2}[grid.zero]
        blocks = int(np.prod(grid.scale_shape(weight.shape, GIVEN.layouts["w"])))
        size += 1024 * 96 * grid.bits // 8 + each * blocks
        share = np.unique(sx.dense(params[name].codes), return_counts=True)[1] / weight.size
        least -= weight.size * np.sum(share * np.log2(share)) / 8
    sx.save(tmp_path / "c", params)
    assert 0.7 * size < least < checkpoint.size_on_disk(tmp_path / "c") <= 1.03 * size + 2**16
    jax.tree.map(np.testing.assert_array_equal, sx.restore(tmp_path / "c"), params)
