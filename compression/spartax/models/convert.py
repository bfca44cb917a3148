"""Published PyTorch weights as Flax models: names, layouts and flatten order are translated, values are not touched."""

import functools
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from spartax.models import layers
from spartax.models.blocks import BasicBlock
from spartax.models.cnn_a import CNNA
from spartax.models.lenet import LeNet5
from spartax.models.resnet import ResNet
from spartax.models.resnet2b import ResNet2B
from spartax.records import ApplyFn, Params

Tensors = Mapping[str, np.ndarray]
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


class Loaded(NamedTuple):
    """A converted model.

    Attributes:
      module: the Flax module.
      variables: `{"params": ...}` and, with batch normalization, `"batch_stats"`; float32.
      apply: `apply(variables, x [B, H, W, C] in [0, 1]) -> logits [B, K]`, evaluation mode.
      info: the file's metadata, and `family`, `input_shape` (H, W, C) and `classes`.
    """

    module: nn.Module
    variables: Params
    apply: ApplyFn
    info: dict[str, Any]


class _Family(NamedTuple):
    """How to recognize an architecture and rebuild it.

    `marks` are tensors that every file of the family has; `build(tensors, mean, std)` reads widths off their shapes;
    `last` names the convolution whose feature map is flattened into `linear1`, if any; `modules` gives the PyTorch
    spelling of a Flax module where they differ.
    """

    marks: tuple[str, ...]
    build: Callable[[Tensors, Sequence[float], Sequence[float]], nn.Module]
    last: str | None = None
    modules: Mapping[str, str] = {}


def load(path: str | pathlib.Path) -> Loaded:
    """Read a PyTorch state dict in a safetensors file as a Flax model.

    The architecture is told from tensor names and shapes, the input normalization from the file's metadata (`mean`
    and `std`, comma separated; none when absent). Convolutions turn from OIHW to HWIO and linear layers from
    (out, in) to (in, out); the rows of the first linear layer move from PyTorch's (C, H, W) to Flax's (H, W, C) order.

    Args:
      path: the file. Known families: ResNets with shortcuts A or B, ResNet-2B, CNN-A (also on MNIST), LeNet-5.

    Returns:
      `Loaded(module, variables, apply, info)`.

    Raises:
      ValueError: the architecture is unknown, or tensors are missing, unexpected or of a wrong shape (all are named).
    """
    tensors, metadata = _read(path)
    name, family = _recognize(path, tensors)
    module = family.build(tensors, _numbers(metadata, "mean", 0.0), _numbers(metadata, "std", 1.0))
    side = _flattened_side(path, tensors, family)
    shape = (4 * side if side else 32,) * 2 + (tensors[family.marks[0]].shape[1],)
    template = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    variables = _translate(f"{path} (read as {name})", tensors, template, family, side)
    info = {**metadata, "family": name, "input_shape": shape, "classes": int(module.classes)}
    return Loaded(module, variables, layers.eval_apply(module), info)


def rebuilt(info: Mapping[str, Any], variables: Params) -> Loaded:
    """A network that `load` gave, from its notes alone and its variables, some of which may be compressed since.

    Args:
      info: as `load` gave it, also after a trip through JSON.
      variables: of the shapes that `load` gave; widths are read off them.

    Raises:
      ValueError: notes without a known family, variables of another network.
    """
    family = FAMILIES.get(info.get("family", ""))
    if family is None:
        raise ValueError(f"info must name a family, one of {', '.join(FAMILIES)}; got {dict(info)!r}.")
    try:
        leaves: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(variables)
        tensors: Any = {torch_name(leaf, family): _TorchShape(_torch_shape(w.shape)) for leaf, w in leaves.items()}
        module = family.build(tensors, _numbers(info, "mean", 0.0), _numbers(info, "std", 1.0))
    except (AttributeError, IndexError, KeyError) as error:
        raise ValueError(f"the variables are not those of a {info['family']}: {error!r}.") from error
    return Loaded(module, variables, layers.eval_apply(module), {**info, "input_shape": tuple(info["input_shape"])})


class _TorchShape(NamedTuple):
    """In place of a tensor, where only its shape is read."""

    shape: tuple[int, ...]


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """HWIO -> OIHW, (in, out) -> (out, in)."""
    return (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _read(path: str | pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors without the marks of training (`module.` prefixes, batch counters), and metadata."""
    with safetensors.safe_open(str(path), framework="numpy") as file:
        tensors = {name.removeprefix("module."): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    return {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}, metadata


def _recognize(path: str | pathlib.Path, tensors: Tensors) -> tuple[str, _Family]:
    """The family most of whose marks are there; on equal terms the one with more marks."""
    found = {name: sum(mark in tensors for mark in family.marks) for name, family in FAMILIES.items()}
    name = max(found, key=lambda n: (found[n] / len(FAMILIES[n].marks), found[n]))
    missing = [mark for mark in FAMILIES[name].marks if mark not in tensors]
    if not missing:
        return name, FAMILIES[name]
    nearest = f"; nearest is {name}, which also needs {', '.join(missing)}" if found[name] else ""
    raise ValueError(
        f"{path} holds none of the known architectures {', '.join(FAMILIES)}{nearest}. "
        f"Its tensors: {', '.join(sorted(tensors)[:20])}{' ...' if len(tensors) > 20 else ''}."
    )


def _numbers(metadata: Mapping[str, str], field: str, default: float) -> tuple[float, ...]:
    return tuple(float(part) for part in metadata.get(field, str(default)).split(","))


def _flattened_side(path: str | pathlib.Path, tensors: Tensors, family: _Family) -> int | None:
    """Side of the square feature map that the first linear layer reads; `None` when the map is averaged instead."""
    if family.last is None:
        return None
    channels = tensors[family.last].shape[0]
    linear = torch_name(("params", "linear1", "kernel"), family)
    inputs = tensors[linear].shape[1]
    side = math.isqrt(inputs // channels)
    if side * side * channels != inputs:
        raise ValueError(f"{path}: {linear} must read {channels} square feature maps; got {inputs} inputs.")
    return side


def torch_name(leaf: Sequence[str], family: _Family) -> str:
    """`("params", "layer1_0", "conv1", "kernel") -> "layer1.0.conv1.weight"`."""
    modules = [family.modules.get(module, re.sub(r"_(\d+)$", r".\1", module)) for module in leaf[1:-1]]
    return ".".join([*modules, _LEAVES[leaf[-1]]])


def _translate(what: str, tensors: Tensors, template: Params, family: _Family, side: int | None) -> Params:
    """Fill the tree of shapes `template` from the tensors; every leaf and every tensor must find its partner."""
    leaves: dict[tuple[str, ...], Any] = flax.traverse_util.flatten_dict(template)
    names = {leaf: torch_name(leaf, family) for leaf in leaves}
    arrays = {
        leaf: _to_flax(tensors[name], side if leaf[1] == "linear1" else None)
        for leaf, name in names.items()
        if name in tensors
    }
    problems = {
        "missing": [name for name in names.values() if name not in tensors],
        "unexpected": [name for name in tensors if name not in names.values()],
        "of a wrong shape": [
            f"{names[leaf]} {tensors[names[leaf]].shape}" for leaf in arrays if arrays[leaf].shape != leaves[leaf].shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in problems.items() if names)
        raise ValueError(f"{what} has tensors that do not fit: {found}.")
    values = {leaf: jnp.asarray(array, leaves[leaf].dtype) for leaf, array in arrays.items()}
    return flax.traverse_util.unflatten_dict(values)


def _to_flax(tensor: np.ndarray, side: int | None) -> np.ndarray:
    """OIHW -> HWIO, (out, in) -> (in, out); with `side`, inputs in (C, H, W) order -> (H, W, C) order."""
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    if tensor.ndim != 2:
        return tensor
    if side is not None:
        maps = tensor.reshape(tensor.shape[0], -1, side, side)
        tensor = maps.transpose(0, 2, 3, 1).reshape(tensor.shape)
    return tensor.T


def _cnn_a(tensors: Tensors, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    widths = (tensors["0.weight"].shape[0], tensors["2.weight"].shape[0])
    return CNNA(widths, tensors["5.weight"].shape[0], tensors["7.weight"].shape[0], mean, std)


def _lenet5(tensors: Tensors, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    widths = (tensors["conv1.weight"].shape[0], tensors["conv2.weight"].shape[0])
    return LeNet5(widths, tensors["linear1.weight"].shape[0], tensors["linear2.weight"].shape[0], mean, std)


def _resnet2b(tensors: Tensors, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    stem, hidden, classes = (tensors[f"{name}.weight"].shape[0] for name in ("conv1", "linear1", "linear2"))
    return ResNet2B(stem, _count(tensors, "layer1.{}.conv1.weight"), hidden, classes, mean, std)


def _resnet(tensors: Tensors, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    groups = range(1, 1 + _count(tensors, "layer{}.0.conv1.weight", start=1))
    widths = tuple(tensors[f"layer{group}.0.conv1.weight"].shape[0] for group in groups)
    depths = tuple(_count(tensors, f"layer{group}.{{}}.conv1.weight") for group in groups)
    stem, classes = tensors["conv1.weight"].shape[0], tensors["linear.weight"].shape[0]
    shortcut = "B" if any(".shortcut." in name for name in tensors) else "A"
    block = functools.partial(BasicBlock, shortcut=shortcut)
    return ResNet(widths, depths, stem, block, classes=classes, mean=mean, std=std)


def _count(tensors: Tensors, pattern: str, start: int = 0) -> int:
    """How many consecutive indices, from `start`, give the name of a tensor."""
    return next(n for n in itertools.count() if pattern.format(start + n) not in tensors)


_SHORTCUT = {"shortcut": "shortcut.0", "shortcut_bn": "shortcut.1"}
FAMILIES = {
    "cnn_a": _Family(
        ("0.weight", "2.weight", "5.weight", "7.weight"),
        _cnn_a,
        last="2.weight",
        modules={"conv1": "0", "conv2": "2", "linear1": "5", "linear2": "7"},
    ),
    "lenet5": _Family(("conv1.weight", "conv2.weight", "linear1.weight", "linear2.weight"), _lenet5, "conv2.weight"),
    "resnet2b": _Family(
        ("conv1.weight", "layer1.0.conv2.weight", "layer1.0.conv2.bias", "linear1.weight", "linear2.weight"),
        _resnet2b,
        last="layer1.0.conv2.weight",
        modules=_SHORTCUT,
    ),
    "resnet": _Family(
        ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight", "linear.weight"),
        _resnet,
        modules=_SHORTCUT,
    ),
}
