"""Slow, obvious NumPy versions of what the attacks compute, one example at a time in float64."""

import bisect
import functools

import numpy as np


def l1_ball_box(v, x0, eps):
    """Projection of one perturbation on {|u|_1 <= eps, 0 <= x0 + u <= 1}: the piece between breakpoints."""
    v, x0 = np.asarray(v, np.float64).ravel(), np.asarray(x0, np.float64).ravel()
    size, room = np.abs(v), np.where(v > 0, 1 - x0, x0)
    fits = np.minimum(size, room)

    def total(a):
        return np.clip(size - a, 0, fits).sum()

    if total(0) <= eps:
        return np.sign(v) * fits
    points = np.unique(np.concatenate([[0.0], size, size - fits]))  # total() is linear between neighbors
    place = bisect.bisect_left(points, True, key=lambda a: total(a) <= eps)
    above, below = points[place - 1], points[place]
    a = above + (below - above) * (total(above) - eps) / (total(above) - total(below))
    return np.sign(v) * np.clip(size - a, 0, fits)


def hyperplane_box(v, w, b, norm):
    """Shortest displacement of one point to {<w, u> = b} in the box: sorted breakpoints (linf, l2) or greedy (l1)."""
    v, w = np.asarray(v, np.float64).ravel(), np.asarray(w, np.float64).ravel()
    need = w @ v - float(b)
    if need < 0:
        need, w = -need, -w
    cap = np.where(w > 0, v, np.where(w < 0, 1 - v, 0.0))
    weight, amount = np.abs(w), np.zeros_like(v)
    if need >= weight @ cap:
        return -np.sign(w) * cap
    if norm == "l1":
        for i in np.argsort(-weight, kind="stable"):
            amount[i] = min(cap[i], need / weight[i]) if weight[i] > 0 else 0.0
            need -= amount[i] * weight[i]
            if need <= 0:
                break
        return -np.sign(w) * amount
    speed = np.ones_like(w) if norm == "linf" else weight
    moving = [i for i in range(w.size) if weight[i] > 0]
    for i in sorted(moving, key=lambda i: cap[i] / speed[i]):  # the next entry to reach its cap, if t gets that far
        rate = sum(weight[j] * speed[j] for j in moving)
        t = need / rate
        if t * speed[i] <= cap[i]:
            break
        amount[i] = cap[i]
        need -= weight[i] * cap[i]
        moving.remove(i)
    for i in moving:
        amount[i] = t * speed[i]
    return -np.sign(w) * amount


def square_side(norm, query, queries, p_init, rescale, height, width):
    """Side of the window of the Square attack at one query."""
    time = int(query / queries * 10000) if rescale else query
    p = p_init
    for limit in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000):
        if time > limit:
            p /= 2
    side = max(round(np.sqrt(p * height * width)), 1 if norm == "linf" else 3)
    if norm != "linf" and side % 2 == 0:
        side += 1
    return min(side, height, width)


def square_bump(rows, columns, norm):
    """Nested squares around the middle of a rectangle, each added with a falling weight; length one."""
    out = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            for level in range(max(rows // 2, columns // 2) + 1):
                if abs(i - rows // 2) <= level and abs(j - columns // 2) <= level:
                    out[i, j] += 1 / (level + 1) ** (2 if norm == "l2" else 4)
    return out / _length(out, norm)


@functools.cache
def square_pattern(side, norm, transposed):
    """A bump in the upper half, its negative in the lower one; length one."""
    out = np.zeros((side, side))
    half = side // 2
    if half:
        out[:half] = square_bump(half, side, norm)
    out[half:] = -square_bump(side - half, side, norm)
    out /= _length(out, norm)
    return out.T if transposed else out


def square_start(norm, eps, x0, transposed, sign):
    """First image of the Square attack: stripes (`sign` [W, C]) or tiles (`transposed` [n], `sign` [n, C])."""
    if norm == "linf":
        return np.clip(x0 + eps * sign[None], 0, 1)
    height, width, _ = x0.shape
    side = max(height // 5, 1)
    first = max((height - 5 * side) // 2, 0)
    delta, tile = np.zeros_like(x0, np.float64), 0
    for row in range(height // side):
        for column in range(width // side):
            top, left = first + row * side, first + column * side
            patch = square_pattern(side, norm, transposed[tile])[:, :, None] * sign[tile]
            patch = patch[: max(height - top, 0), : max(width - left, 0)]
            delta[top : top + side, left : left + side] += patch
            tile += 1
    return _square_within(norm, eps, x0, delta)


def square_query(norm, eps, x, x0, side, corners, transposed, sign, full):
    """One candidate of the Square attack for one image; `corners`: four numbers in [0, 1), `sign`: one per channel."""
    height, width, channels = x0.shape
    x, x0 = np.asarray(x, np.float64), np.asarray(x0, np.float64)
    room = [height - side + full, width - side + full] * 2
    top, left, from_top, from_left = (int(corner * r) for corner, r in zip(corners, room))
    here, there = (
        np.s_[top : top + side, left : left + side],
        np.s_[from_top : from_top + side, from_left : from_left + side],
    )
    if norm == "linf":
        out = x.copy()
        out[here] = np.clip(x[here] + 2 * eps * sign, x0[here] - eps, x0[here] + eps)
        return np.clip(out, 0, 1)
    delta, fresh = x - x0, np.zeros((side, side, channels))
    either = np.zeros((height, width), bool)
    either[here] = either[there] = True
    total = _length(delta, norm)
    for c in range(channels):
        held, both = _length(delta[here][..., c], norm), _length(delta[either][..., c], norm)
        r = square_pattern(side, norm, transposed) * sign[c] + delta[here][..., c] / (held + 1e-12)
        if norm == "l2":
            budget = np.sqrt(max(eps**2 - total**2, 0) / channels + both**2)
        else:
            budget = (max(eps - total, 0) / channels + both) * channels
        fresh[..., c] = r / _length(r, norm) * budget
    delta[there] = 0
    delta[here] = fresh
    return _square_within(norm, eps, x0, delta)


def _square_within(norm, eps, x0, delta):
    if norm == "l1":
        return x0 + l1_ball_box(delta, x0, eps * (1 - 1e-6)).reshape(x0.shape)
    return np.clip(x0 + eps * delta / _length(delta, norm), 0, 1)


def fab_step(norm, x, x0, gap, slope, alpha_max=0.1, eta=1.05):
    """One step of FAB for one example: from `x`, where `f = gap` with gradient `slope`, across the boundary `f = 0`."""
    x, x0, slope = (np.asarray(a, np.float64).ravel() for a in (x, x0, slope))
    b = slope @ x - gap
    there, clean = hyperplane_box(x, slope, b, norm), hyperplane_box(x0, slope, b, norm)
    near, far = max(_length(there, norm), 1e-8), max(_length(clean, norm), 1e-8)
    alpha = min(near / (near + far), alpha_max)
    return np.clip((1 - alpha) * (x + eta * there) + alpha * (x0 + eta * clean), 0, 1)


def _length(values, norm):
    values = np.abs(values)
    return {"linf": values.max, "l2": lambda: np.sqrt(np.sum(values**2)), "l1": values.sum}[norm]()
