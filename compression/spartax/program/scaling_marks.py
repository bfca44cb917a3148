"""Marks of the values of a program that are divided by positive factors, and what is known of each weight."""

import dataclasses
import math
from collections import Counter

import numpy as np

from spartax.records import Path


@dataclasses.dataclass(frozen=True, eq=False)
class Param:
    """A weight as it is stored, but for the order of its axes: `axes` are the stored axes of each axis."""

    path: Path
    axes: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled:
    """A value divided by the factors `s[index]` of a root.

    Attributes:
      root: the weight whose channels these are.
      index: channel of every entry; has the rank of the value, and size 1 along axes on which it does not depend.
      pure: whether it is a weight itself, spread and cast but not yet mixed with anything.
    """

    root: Path
    index: np.ndarray
    pure: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Plain:
    """A value that no factor changes, and where the last mark was lost."""

    why: str


class Book:
    """What was found on the way.

    Attributes:
      shapes: of all weights.
      starts: root -> channel of each entry of the root itself.
      joined: vector -> (root, channel of each entry of the vector).
      multiplied: root -> contracted weight -> channel of each entry of it.
      unscaled: contracted weight -> why its inputs bear no mark.
      refused: root -> why.
      uses: contractions of each weight.
      loose: weights that something else than a contraction reads.
    """

    def __init__(self, shapes: dict[Path, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.starts: dict[Path, np.ndarray] = {}
        self.joined: dict[Path, tuple[Path, np.ndarray]] = {}
        self.multiplied: dict[Path, dict[Path, np.ndarray]] = {}
        self.unscaled: dict[Path, str] = {}
        self.refused: dict[Path, str] = {}
        self.uses: Counter[Path] = Counter()
        self.loose: set[Path] = set()

    def refuse(self, value: Scaled | Param, why: str) -> None:
        """The first reason is the one told."""
        path = value.root if isinstance(value, Scaled) else value.path
        self.refused.setdefault(path, why)
        if isinstance(value, Param):
            self.loose.add(path)

    def vector(self, value: Param) -> Scaled:
        """A weight that is not contracted here, each entry a channel of its own."""
        shape = self.shapes[value.path]
        index = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
        self.loose.add(value.path)
        self.starts.setdefault(value.path, index)
        return Scaled(value.path, index.transpose(value.axes), pure=True)

    def join(self, vector: Scaled, other: Scaled) -> Scaled | str:
        """`vector + other`: the vector is divided by the factors of the other."""
        shape = np.broadcast_shapes(vector.index.shape, other.index.shape)
        own, to = (np.broadcast_to(v.index, shape).ravel() for v in (vector, other))
        channel = np.full(math.prod(self.shapes[vector.root]), -1, np.int32)
        channel[own] = to
        if np.any(channel < 0) or np.any(channel[own] != to):
            return f"{vector.root} is added along other axes"
        new = other.root, channel.reshape(self.shapes[vector.root])
        old = self.joined.setdefault(vector.root, new)
        if old[0] != new[0] or np.any(old[1] != new[1]):
            return f"{vector.root} is added in several places"
        return Scaled(other.root, other.index)
