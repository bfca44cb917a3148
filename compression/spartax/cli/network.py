"""The network a command works on: a saved checkpoint and the function that runs it."""

import importlib
import os
import pathlib
import sys
from typing import NamedTuple

import jax
import numpy as np
import safetensors

from spartax import checkpoint, export, models
from spartax.records import ApplyFn, Params


class Network(NamedTuple):
    """A network.

    Attributes:
      params: arrays and compressed leaves.
      apply: `(params, x) -> logits`, None when nobody named it.
      shape: of the input, batch first; None when nobody gave it.
    """

    params: Params
    apply: ApplyFn | None
    shape: tuple[int, ...] | None

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
        return Network(checkpoint.restore(path), function, shape)
    try:
        with safetensors.safe_open(path, "np") as file:
            own = export.FIELD in (file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    if own:
        return Network(export.read_safetensors(path), function, shape)
    loaded = models.load(path)
    return Network(loaded.variables, function or loaded.apply, shape or (1, *loaded.info["input_shape"]))


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


def write(path: pathlib.Path, params: Params) -> int:
    """Save packed params, as one file if the name ends in .safetensors; gives the bytes on disk."""
    if path.suffix == ".safetensors":
        return export.safetensors(path, params)
    checkpoint.save(path, params)
    return checkpoint.size_on_disk(path)
