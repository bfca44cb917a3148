"""Errors at the door: every check names the argument, what came and what is allowed."""

import difflib
import math
from collections.abc import Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def one_of(name: str, value: Any, allowed: Collection[Any]) -> None:
    """`value` must be one of `allowed`; the nearest spelling is suggested."""
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(repr(a) for a in allowed)}; got {value!r}.{hint}")


def in_range(name: str, value: float, low: float, high: float, *, open_high: bool = False) -> None:
    """`low <= value <= high` (`< high` when `open_high`)."""
    ok = isinstance(value, (int, float, np.number)) and low <= value and (value < high if open_high else value <= high)
    if not ok:
        raise ValueError(f"{name} must be in [{low}, {high}{')' if open_high else ']'}; got {value!r}.")


def positive(name: str, value: float) -> None:
    """`value` must be a finite number above zero."""
    if not isinstance(value, (int, float, np.number)) or not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a finite number above 0; got {value!r}.")


def positive_int(name: str, value: int, *, least: int = 1) -> None:
    """`value` must be an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")


def is_concrete(x: Any) -> bool:
    """Whether values can be looked at (they cannot under `jit`)."""
    return not isinstance(x, jax.core.Tracer) if hasattr(jax.core, "Tracer") else isinstance(x, (np.ndarray, jax.Array))


def finite(name: str, x: Any) -> None:
    """A floating array must hold no NaN and no infinity (checked when its values are known)."""
    if not is_concrete(x) or not jnp.issubdtype(x.dtype, jnp.floating):
        return
    with jax.ensure_compile_time_eval():  # constants of a function that is being traced have values too
        if not bool(jnp.all(jnp.isfinite(x))):
            raise ValueError(f"{name} holds NaN or infinite values; fix or retrain it before compressing or attacking.")


def nonzero_layers(name: str, values: Any, stack: int) -> None:
    """Values `[*stack, ...]` of `stack` leading axes must not be zero everywhere in any layer (when they are known)."""
    dead = dead_layer(values, stack)
    if dead is not None:
        raise ValueError(f"{name}{dead} is zero everywhere, so it tells nothing apart; check the data and the loss.")


def dead_layer(values: Any, stack: int) -> str | None:
    """Where a layer is zero everywhere: ` of layer 1 of the stack`, or nothing without a stack; None if there is none.

    Args:
      values: `[*stack, ...]`; nothing is said of values that are not known.
      stack: its leading axes.
    """
    if not is_concrete(values):
        return None
    with jax.ensure_compile_time_eval():
        seen = np.asarray(jnp.any(values.reshape(*values.shape[:stack], -1) != 0, axis=-1))
    if seen.all():
        return None
    place = ", ".join(str(int(i)) for i in np.argwhere(~seen)[0])
    return f" of layer {place} of the stack" if stack else ""


def images(name: str, x: Any, *, low: float = 0.0, high: float = 1.0) -> None:
    """Images: floating, at least two axes (batch first), values in [0, 1] (when they are known)."""
    if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be a floating array in [{low}, {high}]; got {getattr(x, 'dtype', type(x))}.")
    if x.ndim < 2:
        raise ValueError(f"{name} must be a batch [B, ...] of images; got shape {tuple(x.shape)}.")
    if is_concrete(x) and x.size:
        least, most = float(x.min()), float(x.max())  # of a NumPy array without the device
        if not (least >= low and most <= high):  # NaN fails both
            raise ValueError(f"{name} must lie in [{low}, {high}]; got values from {least:g} to {most:g}.")


def labels(name: str, y: Any, *, batch: int, classes: float | None = None) -> None:
    """Labels: integers `[B]` in `[0, classes)`."""
    if not hasattr(y, "dtype") or not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(f"{name} must be an integer array [B]; got {getattr(y, 'dtype', type(y))}.")
    if tuple(y.shape) != (batch,):
        raise ValueError(f"{name} must have shape ({batch},) to match the images; got {tuple(y.shape)}.")
    if is_concrete(y) and y.size and classes is not None:
        least, most = int(y.min()), int(y.max())
        if least < 0 or most >= classes:
            raise ValueError(f"{name} must lie in [0, {classes}); got values from {least} to {most}.")


def batch(name: str, x: Any, y: Any, *, attacked: bool = False) -> None:
    """A batch of training: as many labels as images, at least one, integers of 0 or more; no NaN or infinity in images.

    Values are looked at where they are in memory (NumPy), since looking at those of a device waits for it.

    Args:
      name: of the batch.
      x: images, or a tree of inputs, `[B, ...]`.
      y: labels `[B, ...]`.
      attacked: whether a loss attacks the images: they must lie in [0, 1].
    """
    for part in jax.tree.leaves(x):
        if len(part) != len(y):
            raise ValueError(f"{name} must hold one label for each image; got {len(part)} images, {len(y)} labels.")
        if isinstance(part, np.ndarray) and attacked:
            images(f"x of {name}", part)
        elif isinstance(part, np.ndarray) and jnp.issubdtype(part.dtype, jnp.floating) and not np.isfinite(part).all():
            raise ValueError(f"x of {name} holds NaN or infinite values; every one must be finite.")
    if not len(y):
        raise ValueError(f"{name} must hold at least one example; got none.")
    if isinstance(y, np.ndarray):
        labels(f"y of {name}", y.reshape(-1), batch=y.size, classes=math.inf)


def nonzero(name: str, arrays: Iterable[Any]) -> None:
    """Arrays must not be zero everywhere (checked when their values are known)."""
    arrays = list(arrays)
    if not all(is_concrete(x) for x in arrays):
        return
    with jax.ensure_compile_time_eval():  # constants of a function that is being traced have values too
        if not any(bool(jnp.any(x)) for x in arrays):
            raise ValueError(f"{name} is zero everywhere, so it tells nothing apart; check the data and the loss.")
