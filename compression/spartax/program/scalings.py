"""`scalings`: channels that one layer may divide, and the next ones multiply, without changing the network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from spartax import tree
from spartax.program.inspect import trace
from spartax.program.scaling_marks import Book, Param, Plain, Scaled
from spartax.program.scaling_rules import walked
from spartax.records import Params, Path


class Scaling(NamedTuple):
    """For every `s > 0` `[channels]`, `w / s[index]` of these weights and `w * s[index]` of those is the same network.

    Attributes:
      divided: path -> int index of the channel of each entry, which broadcasts against the weight: the outputs of a
        contracted weight and the vectors added to them, or the scale of a normalization and what is added to it.
      multiplied: the same for the inputs of every contracted weight that reads the channels.
      channels: how many.
    """

    divided: dict[Path, np.ndarray]
    multiplied: dict[Path, np.ndarray]
    channels: int


class Scalings(NamedTuple):
    """What may be scaled and what not.

    Attributes:
      pairs: first divided weight -> `Scaling`. Every weight is multiplied by one pair at most, and divided by one.
      refused: contracted weight -> why its inputs cannot be scaled.
    """

    pairs: dict[Path, Scaling]
    refused: dict[Path, str]


def scalings(apply_fn: Callable[..., Any], params: Params, *args: Any) -> Scalings:
    """Which weights can hand a positive factor per channel from one to the other, read off the program.

    The program is walked once on values that are marked "divided by s along these axes". A mark passes only what
    commutes with positive factors (relu and leaky relu, pools, zero padding, moved and reshaped axes, products with
    values without mark, sums of two values with the same mark); it must end in contractions over the marked axis. Every
    other use, a part in the output of the model, and a weight that is read in more than one place refuse the pair.
    A layer in front of a normalization with a scale leaves its pair to that scale.

    Args:
      apply_fn: pure function of `params` and more.
      params: arrays, compressed leaves or `jax.ShapeDtypeStruct`: only shapes are read.
      *args: the other arguments, arrays or `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: the function does not accept these params or inputs.
    """
    jaxpr, _ = trace(apply_fn, params, args)
    named = tree.weights(params)
    book = Book({path: tuple(w.shape) for path, w in named.items()})
    floating = {path: tree.is_floating(w) for path, w in named.items()}
    values: list[Any] = [
        Param(path, tuple(range(len(shape)))) if floating[path] else Plain("read off an integer weight")
        for path, shape in book.shapes.items()
    ]
    values += [Plain("an input of the model") for _ in jax.tree.leaves(args)]
    for output in walked(book, jaxpr, values):
        if isinstance(output, Scaled | Param):
            book.refuse(output, "an output of the model")
    why = {root: _why_not(book, root) for root in book.multiplied}
    pairs = {root: _pair(book, root) for root in book.multiplied if why[root] is None}
    late = {path: str(why[root]) for root, paths in book.multiplied.items() if why[root] for path in paths}
    return Scalings(pairs, {path: why for path, why in (book.unscaled | late).items() if not _paired(pairs, path)})


def _paired(pairs: dict[Path, Scaling], path: Path) -> bool:
    return any(path in pair.multiplied for pair in pairs.values())


def _pair(book: Book, root: Path) -> Scaling:
    vectors = {v: index for v, (to, index) in book.joined.items() if to == root}
    return Scaling({root: book.starts[root], **vectors}, book.multiplied[root], int(book.starts[root].max()) + 1)


def _why_not(book: Book, root: Path) -> str | None:
    """Why a root that contractions read cannot be divided, or None."""
    vectors = [v for v, (to, _) in book.joined.items() if to == root]
    for path in (root, *vectors):
        if path in book.refused:
            return book.refused[path] if path == root else f"{path}: {book.refused[path]}"
    if root in book.joined:
        return f"{root} is also added to the outputs of {book.joined[root][0]}"
    for path in vectors:
        if path in book.multiplied or path in book.uses:
            return f"{path} is added to it and used on its own"
    for path in (root, *book.multiplied[root]):
        if book.uses[path] > 1 or (path in book.uses and path in book.loose):
            return f"{path} is read in more than one place"
    return None
