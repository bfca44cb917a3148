"""Slow, obvious NumPy versions of what the attacks compute, one example at a time in float64."""

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
    above = max(a for a in points if total(a) > eps)
    below = min(a for a in points if total(a) <= eps)
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
