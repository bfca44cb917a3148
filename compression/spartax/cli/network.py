"""The network a command works on: a saved checkpoint and the function that runs it."""

import importlib
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors

from spartax import checkpoint, export, models
from spartax.program import compressed, inspect
from spartax.records import ApplyFn, Params

NOTES = "spartax"  # field of the notes of a checkpoint that is for the command line


class About(NamedTuple):
    """What the command line keeps with the weights it writes.

    Attributes:
      model: name of the dense network.
      steps: what was done to it, in words.
      options: the same by name, as records hold it.
      network: what `models.load` told of its architecture; empty where it is not known.
    """

    model: str
    steps: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}
    network: Mapping[str, Any] = {}


class Network(NamedTuple):
    """A network.

    Attributes:
      params: arrays and compressed leaves.
      apply: `(params, x) -> logits`, None when nobody named it and the file does not say.
      shape: of the input, batch first; None when nobody gave it.
      about: where it comes from.
      notes: of its file, those of others too.
      module: the Flax module, which also runs in training mode; None where the architecture is not known.
    """

    params: Params
    apply: ApplyFn | None
    shape: tuple[int, ...] | None
    about: About
    notes: Mapping[str, Any] = {}
    module: Any = None

    def program(self) -> tuple[ApplyFn, jax.ShapeDtypeStruct]:
        """The function and its input.

        Raises:
          ValueError: one of them is not known.
        """
        if self.apply is None or self.shape is None:
            raise ValueError("--apply module:function and --shape 1,32,32,3 are needed: the file holds weights alone")
        return self.apply, jax.ShapeDtypeStruct(self.shape, np.float32)


def read(path: pathlib.Path, apply: str | None, shape: tuple[int, ...] | None) -> Network:
    """A folder of `sx.save`, a file of `export.safetensors`, or PyTorch weights that `models.load` knows.

    Raises:
      ValueError: nothing that can be read, or a function that cannot be imported.
    """
    function = None if apply is None else imported(apply)
    if not path.is_file():
        return _noted(checkpoint.restore(path), checkpoint.extra(path), path, function, shape)
    try:
        with safetensors.safe_open(path, "np") as file:
            own = export.FIELD in (file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    if own:
        return _noted(export.read_safetensors(path), export.about(path), path, function, shape)
    loaded = models.load(path)
    about = About(name_of(path), network=loaded.info)
    module = loaded.module if function is None else None
    shape = shape or (1, *loaded.info["input_shape"])
    return Network(loaded.variables, function or loaded.apply, shape, about, module=module)


def _noted(
    params: Params,
    notes: Mapping[str, Any],
    path: pathlib.Path,
    function: ApplyFn | None,
    shape: tuple[int, ...] | None,
) -> Network:
    """With the architecture that the notes tell of."""
    try:
        fields: dict[str, Any] = {"model": name_of(path), **notes.get(NOTES, {})}
        about = About(**fields)
    except TypeError as error:
        raise ValueError(f"{path} has notes in the field {NOTES!r} that are of something else: {error}") from error
    if not about.network or function is not None:
        return Network(params, function, shape, about, notes)
    loaded = models.rebuilt(about.network, params)
    return Network(params, loaded.apply, shape or (1, *loaded.info["input_shape"]), about, notes, loaded.module)


def check(apply: ApplyFn, params: Params, shape: tuple[int, ...]) -> None:
    """That a function gives logits for images of this shape, batch first.

    Raises:
      ValueError: it fails on them, or gives something else.
    """
    x = jax.ShapeDtypeStruct(shape, np.float32)
    inspect(apply, params, x)  # fails in one line if they do not fit
    found = jax.eval_shape(compressed(apply), params, x)
    sizes = getattr(found, "shape", ())
    if len(sizes) != 2 or sizes[0] != shape[0]:
        came = jax.tree.map(lambda out: out.shape, found)
        raise ValueError(f"--apply must give logits [{shape[0]}, classes] for images {shape}; it gives {came}")


def name_of(path: pathlib.Path) -> str:
    """A file with its folder, as `weights/net`: two of one name in different folders are two networks."""
    path = path.resolve()
    return "/".join((path.with_suffix("") if path.suffix == ".safetensors" else path).parts[-2:])


def imported(name: str) -> ApplyFn:
    """The function `module:function`; modules of the current folder are found too.

    Raises:
      ValueError: it is not there, or its module fails.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"--apply must be module:function; got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever that module does
        raise ValueError(f"--apply {name}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ValueError(f"--apply {name}: not a function")
    return found


def write(path: pathlib.Path, found: Network) -> int:
    """Save packed params with their notes, as one file if the name ends in .safetensors; gives the bytes on disk."""
    notes = {**found.notes, NOTES: found.about._asdict()}
    if path.suffix == ".safetensors":
        return export.safetensors(path, found.params, notes)
    checkpoint.save(path, found.params, extra=notes)
    return checkpoint.size_on_disk(path)
