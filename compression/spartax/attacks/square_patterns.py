"""What the Square attack draws on images: window sizes over time, bumps, tiles. NumPy, computed once."""

import numpy as np

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # last query (of 10,000) with each size


def window_sides(norm: str, queries: int, p_init: float, *, rescale: bool, height: int, width: int) -> np.ndarray:
    """Side of the square window at each query, int32 `[queries]`.

    The window covers the fraction `p_init` of the image at first and half of that after queries 10, 50, 200, 500, 1000,
    2000, 4000, 6000 and 8000; `rescale` shrinks these times from 10,000 to the number of queries at hand. For l2 and l1
    the side is at least 3 and odd.
    """
    time = np.arange(queries)
    time = (time / queries * 10_000).astype(int) if rescale else time
    area = p_init / 2.0 ** np.searchsorted(_HALVINGS, time) * height * width
    side = np.maximum(np.round(np.sqrt(area)), 1 if norm == "linf" else 3).astype(np.int32)
    if norm != "linf":
        side += side % 2 == 0
    return np.minimum(side, min(height, width))


def bump(rows: int, columns: int, norm: str) -> np.ndarray:
    """A peak in the middle of a rectangle, of norm one.

    `sum_j (j + 1)^-k [pixel in the square of side 2 j + 1 around the middle]`, `k` = 2 for l2 and 4 for l1.
    """
    middle_row, middle_column = rows // 2, columns // 2
    out = np.zeros((rows, columns))
    for j in range(max(middle_row, middle_column) + 1):
        square = np.s_[max(middle_row - j, 0) : middle_row + j + 1, max(middle_column - j, 0) : middle_column + j + 1]
        out[square] += 1.0 / (j + 1) ** (2 if norm == "l2" else 4)
    return out / _length(out, norm)


def double_bump(side: int, norm: str) -> np.ndarray:
    """A peak over a valley, `[side, side]`, of norm one."""
    upper = side // 2
    halves = [bump(upper, side, norm)] if upper else []
    out = np.concatenate([*halves, -bump(side - upper, side, norm)])
    return out / _length(out, norm)


def patches(sides: np.ndarray, norm: str) -> np.ndarray:
    """`double_bump` of each side, upright and transposed, in one float32 array `[len(sides), 2, largest, largest]`."""
    largest = int(max(sides))
    out = np.zeros((len(sides), 2, largest, largest), np.float32)
    for place, side in enumerate(sides):
        upright = double_bump(int(side), norm)
        out[place, 0, :side, :side], out[place, 1, :side, :side] = upright, upright.T
    return out


def tiling(height: int, width: int, norm: str) -> tuple[np.ndarray, np.ndarray, int]:
    """The start for l2 and l1: the image covered by tiles of a fifth of its height, one double bump each.

    Returns:
      The bumps upright and transposed, float32 `[2, height, width]`; the number of the tile that each pixel belongs to,
      int32 `[height, width]`; how many tiles there are.
    """
    side = max(height // 5, 1)
    border = max((height - 5 * side) // 2, 0)
    row, column = np.arange(height) - border, np.arange(width) - border
    down, across = height // side, width // side
    covered = np.outer((row >= 0) & (row < down * side), (column >= 0) & (column < across * side))
    patch = double_bump(side, norm)
    bumps = [covered * p[np.ix_(row % side, column % side)] for p in (patch, patch.T)]
    number = np.where(covered, np.add.outer(row // side * across, column // side), 0)
    return np.stack(bumps).astype(np.float32), number.astype(np.int32), down * across


def _length(array: np.ndarray, norm: str) -> float:
    return float(np.sqrt(np.sum(array**2)) if norm == "l2" else np.sum(np.abs(array)))
