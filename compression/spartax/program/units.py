"""`Units`: which indices, on whichever axes of whichever arrays, stand for the same channel.

Every index along every axis of every value of a program has a number, its *unit*. Indices that can only be removed
together share a unit in the end: a union-find over them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Axes = tuple[np.ndarray, ...]  # for each axis of a value, the unit of every index


class Split(NamedTuple):
    """One axis seen as several: `whole[i * |B| + j]` is the pair of `parts[0][i]` and `parts[1][j]`."""

    whole: np.ndarray
    parts: tuple[np.ndarray, ...]


class Units:
    """Union-find over units, those that must stay, and the axes that a reshape cuts or joins."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, np.int64)
        self._frozen: list[tuple[np.ndarray, str]] = []
        self._splits: list[Split] = []

    @property
    def count(self) -> int:
        """How many units were ever made."""
        return len(self._parent)

    def fresh(self, size: int) -> np.ndarray:
        """New units, each on its own."""
        made = np.arange(self.count, self.count + size)
        self._parent = np.concatenate([self._parent, made])
        return made

    def fixed(self, size: int, why: str) -> np.ndarray:
        """An axis that cannot be cut: one unit for all its indices, frozen."""
        units = np.repeat(self.fresh(1), size)
        self.freeze(units, why)
        return units

    def roots(self, units: np.ndarray) -> np.ndarray:
        """The representatives: equal for indices that go together."""
        found = self._parent[units]
        while np.any(self._parent[found] != found):
            found = self._parent[found]
        self._parent[units] = found
        return found

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Index by index, `a[i]` and `b[i]` go together."""
        pairs = np.stack([self.roots(a), self.roots(b)], axis=1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        for one, other in np.unique(pairs, axis=0) if len(pairs) else ():
            low, high = sorted(self.roots(np.array([one, other])))
            self._parent[high] = low

    def freeze(self, units: np.ndarray, why: str) -> None:
        """These stay; the first reason given is the one told."""
        self._frozen.append((np.unique(units), why))

    def split(self, whole: np.ndarray, parts: Sequence[np.ndarray]) -> None:
        """`whole` runs over all combinations of `parts`, the last one fastest; `settle` decides what may be cut."""
        self._splits.append(Split(whole, tuple(parts)))

    def why_frozen(self) -> dict[int, str]:
        """Representative of every frozen set -> why."""
        return {int(r): why for units, why in reversed(self._frozen) for r in self.roots(units)}

    def is_frozen(self, units: np.ndarray) -> np.ndarray:
        """Which of these units stay."""
        stay = np.zeros(self.count, bool)
        stay[self.roots(np.concatenate([np.zeros(0, np.int64), *(u for u, _ in self._frozen)]))] = True
        return stay[self.roots(units)]

    def settle(self) -> None:
        """Where one axis is seen as several, only one of those can be cut: the first that is not frozen.

        `[heads * dim]` seen as `[heads, dim]` loses whole heads; `[H, W, C]` seen as `[H * W * C]`, whose H and W are
        frozen, loses for each channel its `H W` entries.
        """
        for whole, parts in self._splits:
            free = [i for i, part in enumerate(parts) if not np.all(self.is_frozen(part))]
            if not free or np.all(self.is_frozen(whole)):
                self.freeze(np.concatenate([whole, *parts]), "reshaped into axes that stay")
                continue
            for part in (*parts[: free[0]], *parts[free[0] + 1 :]):
                self.freeze(part, "another factor of the same axis is the one that can be cut")
            grid = np.indices([len(part) for part in parts])[free[0]].ravel()
            self.tie(whole, parts[free[0]][grid])
