"""Flax weights written the way PyTorch names and lays them out, so that `models.load` and PyTorch read them."""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np
import safetensors.numpy

from spartax.models import convert
from spartax.models.cnn_a import CNNA
from spartax.models.lenet import LeNet5
from spartax.models.resnet import ResNet
from spartax.models.resnet2b import ResNet2B
from spartax.records import Params

_NAMES: dict[type[nn.Module], str] = {CNNA: "cnn_a", LeNet5: "lenet5", ResNet: "resnet", ResNet2B: "resnet2b"}


def save(path: str | os.PathLike, module: nn.Module, variables: Params, about: Mapping[str, str] | None = None) -> None:
    """Write a network as one safetensors file, the inverse of `models.load`: values are not touched.

    The file appears whole or not at all.

    Args:
      path: the file.
      module: a CNN-A, LeNet-5, ResNet-2B, or a ResNet of basic blocks.
      variables: its dense weights and batch statistics.
      about: more metadata, such as `{"training": "aaer, Linf 8/255"}`; the input normalization is always there.

    Raises:
      ValueError: a module of another family.
    """
    if type(module) not in _NAMES or getattr(module, "preact", False):
        known = ", ".join(kind.__name__ for kind in _NAMES)
        raise ValueError(f"module must be one of {known} (basic blocks); got {module!r}.")
    family = convert.FAMILIES[_NAMES[type(module)]]
    leaves: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(variables)
    tensors = {convert.torch_name(leaf, family): np.asarray(value) for leaf, value in leaves.items()}
    channels = None if family.last is None else tensors[family.last].shape[-1]
    flattened = convert.torch_name(("params", "linear1", "kernel"), family)
    stored = {
        name: np.ascontiguousarray(_to_torch(value, channels if name == flattened else None))
        for name, value in tensors.items()
    }
    numbers = {field: ",".join(repr(float(v)) for v in getattr(module, field)) for field in ("mean", "std")}
    path = pathlib.Path(path)
    beside = path.with_name(path.name + ".part")
    safetensors.numpy.save_file(stored, beside, {**numbers, **(about or {})})
    beside.replace(path)


def _to_torch(array: np.ndarray, channels: int | None) -> np.ndarray:
    """HWIO -> OIHW, (in, out) -> (out, in); with `channels`, inputs in (H, W, C) order -> (C, H, W) order."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim != 2:
        return array
    if channels is not None:
        side = math.isqrt(array.shape[0] // channels)
        array = array.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(array.shape)
    return array.T
