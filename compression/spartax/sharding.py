"""Many devices: one mesh, and where weights and batches lie on it.

Everything else follows the arrays: training, attacks, `collect`, pruning, factorization and quantization are the same
functions, and give on a mesh what they give on one device. With several processes (`jax.distributed.initialize()`
first) the mesh spans the devices of all, and every process runs the same program on the same batches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from spartax import checks

AXES = ("data", "model")


def mesh(data: int = -1, model: int = 1, *, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices as a grid `[data, model]`: batches are split over its rows, large weights over its columns.

    The compiler places what nobody placed (`AxisType.Auto`).

    Args:
      data: rows; -1 takes as many as the devices fill.
      model: columns.
      devices: which, instead of all devices of all processes.

    Raises:
      ValueError: the grid does not hold exactly the devices there are.
    """
    there = jax.devices() if devices is None else list(devices)
    checks.positive_int("model", model)
    rows = len(there) // model if data == -1 else data
    checks.positive_int("data", rows)
    if rows * model != len(there):
        wanted = f"{model} columns" if data == -1 else f"{data} x {model} = {data * model} devices"
        raise ValueError(f"data and model ask for a mesh of {wanted}; there are {len(there)} devices.")
    return jax.make_mesh((rows, model), AXES, (AxisType.Auto,) * 2, devices=there)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The tree with every array whole on every device; what is no array stays as it is.

    Args:
      tree: params, compressed or not, or a whole `train.State`.
      mesh: from `mesh`.
    """
    return _placed(tree, mesh, lambda x: PartitionSpec())


def shard_params(tree: Any, mesh: Mesh, *, min_size: int = 2**16, over: str = "model") -> Any:
    """The tree with every large array split over one axis of the mesh, and the small ones whole on every device.

    An array of `min_size` entries or more is split along the longest of its axes that the devices divide evenly. The
    rule looks at shapes only: masks and moments of the optimizer lie like their weights, codes and factors are split on
    their own. `over="data"` spreads weights over the devices that share the batch (fully sharded data parallelism,
    ZeRO stage 3; Rajbhandari et al., arXiv 1910.02054). Place the whole state before training:

        state = sharding.shard_params(train.init_state(variables, tx), mesh)

    Args:
      tree: params, compressed or not, or a whole `train.State`.
      mesh: from `mesh`.
      min_size: entries from which on an array is split.
      over: the axis of the mesh, `"model"` or `"data"`.

    Raises:
      ValueError: an axis that the mesh does not have.
    """
    checks.one_of("over", over, mesh.axis_names)
    checks.positive_int("min_size", min_size)
    parts = mesh.shape[over]

    def spec(x: Any) -> PartitionSpec:
        fitting = [axis for axis, length in enumerate(x.shape) if length and length % parts == 0]
        if x.size < min_size or not fitting:
            return PartitionSpec()
        longest = max(fitting, key=lambda axis: x.shape[axis])
        return PartitionSpec(*(over if axis == longest else None for axis in range(x.ndim)))

    return _placed(tree, mesh, spec)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """A batch `(x [B, ...], y [B], ...)` with its examples split over the rows of the mesh.

    With several processes every one gives the whole batch, the same one, and keeps its own part.

    Args:
      batch: pytree of arrays whose first axis is that of the examples.
      mesh: from `mesh`.

    Raises:
      ValueError: the rows of the mesh do not divide the examples.
    """
    rows = mesh.shape["data"]
    for x in jax.tree.leaves(batch):
        if np.ndim(x) == 0 or len(x) % rows:
            raise ValueError(
                f"batch: {rows} devices share its examples, so their number must be a multiple of {rows}; got an array "
                f"of shape {np.shape(x)}. Choose such a batch_size, and drop_last=True in data.batches."
            )
    return spread(batch, NamedSharding(mesh, PartitionSpec("data")))


def spreader(devices: Sequence[jax.Device]) -> tuple[Callable[[Any], Any], int]:
    """`(place, share)`: what splits the first axis of arrays over these devices, and how many rows it must divide by.

    Args:
      devices: of this process; with none, arrays are left where they are.
    """
    if not devices:
        return (lambda arrays: arrays), 1
    split = NamedSharding(Mesh(np.array(devices), ("batch",)), PartitionSpec("batch"))
    return (lambda arrays: jax.device_put(arrays, split)), len(devices)


def spread(tree: Any, lying: Sharding) -> Any:
    """The tree with all arrays lying so; with several processes every one gives whole arrays and keeps its own part.

    Without the comparison of all processes that `jax.device_put` makes, which costs a message per array: that they give
    the same values is up to the caller.

    Args:
      tree: pytree of arrays.
      lying: where, such as the `sharding` of an array.
    """
    if lying.is_fully_addressable:
        return jax.device_put(tree, lying)
    return jax.tree.map(lambda x: _part_of(np.asarray(x), lying), tree)


def _part_of(x: np.ndarray, lying: Sharding) -> jax.Array:
    return jax.make_array_from_callback(x.shape, lying, lambda index: x[index])


def _placed(tree: Any, mesh: Mesh, spec: Callable[[Any], PartitionSpec]) -> Any:
    def put(x: Any) -> Any:
        return jax.device_put(x, NamedSharding(mesh, spec(x))) if isinstance(x, (jax.Array, np.ndarray)) else x

    return jax.tree.map(put, tree)
