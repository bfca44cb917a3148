import functools
import json
import pathlib

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from spartax.attacks import projections
from tests.attacks import golden
from tests.oracles import attacks as oracle

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden_fab.json").read_text())
NORMS = ("linf", "l2", "l1")
few = hypothesis.settings(max_examples=30, deadline=None, derandomize=True)


to_plane = {norm: jax.jit(functools.partial(projections.hyperplane_box, norm=norm)) for norm in NORMS}
moved = {norm: jax.jit(functools.partial(projections.move_to_plane, norm=norm)) for norm in NORMS}
to_ball = jax.jit(projections.l1_ball_box)
# Tests share the shapes [12, 40] and [8, 7], so that little is compiled.


def length(d, norm):
    d = np.abs(np.asarray(d, np.float64)).reshape(len(d), -1)
    return {"linf": d.max(1), "l2": np.sqrt((d**2).sum(1)), "l1": d.sum(1)}[norm]


def problem(seed, shape, *, kind="plain"):
    """Points, normals and offsets; some planes miss the box, `kind` sets entries to zero or makes them collide."""
    rng = np.random.default_rng(seed)
    v, w = rng.random(shape), rng.normal(size=shape) * 10.0 ** rng.uniform(-6, 4, size=(shape[0], 1))
    if kind == "zeros":
        v, w = np.round(4 * v) / 4, np.where(rng.random(shape) < 0.3, 0, w)
    if kind == "ties":
        v, w = np.round(v), np.sign(w)
    v, w = v.astype(np.float32), w.astype(np.float32)
    b = np.sum(w * v, 1) + rng.normal(size=shape[0]) * 0.6 * np.abs(w).sum(1)
    return v, w, b.astype(np.float32)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["plain", "zeros", "ties"])
def test_plane_against_the_sorted_oracle(norm, kind):
    v, w, b = problem(40, (12, 40), kind=kind)
    got = np.asarray(to_plane[norm](v, w, b))
    expected = np.stack([oracle.hyperplane_box(v[i], w[i], b[i], norm) for i in range(12)])
    np.testing.assert_allclose(length(got, norm), length(expected, norm), rtol=1e-5, atol=1e-6)
    if norm != "l1" or kind == "plain":  # with ties in l1 several points are equally near
        np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_plane_goldens_of_the_reference(norm):
    t = golden.stream(480, 11).reshape(12, 40)
    w = 2 * (golden.stream(480, 12) - 0.5).reshape(12, 40)
    b = np.sum(w * t, 1) + 1.2 * (golden.stream(12, 13) - 0.5) * np.abs(w).sum(1)
    step = np.asarray(to_plane[norm](*(a.astype(np.float32) for a in (t, w, b))))
    expected = GOLDEN["fab_projection"][{"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]]
    np.testing.assert_allclose(length(step, norm), expected["norm"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.sum(w * (t + step), 1) - b, expected["residual"], atol=1e-5)


def test_ball_goldens_of_the_reference():
    t = golden.stream(480, 11).reshape(12, 40).astype(np.float32)
    w = 2 * (golden.stream(480, 12) - 0.5).reshape(12, 40).astype(np.float32)
    got = np.asarray(to_ball(w, t, 2.0))
    np.testing.assert_allclose(np.abs(got).sum(1), GOLDEN["l1_ball_box"]["l1_after"], atol=1e-5)
    np.testing.assert_allclose(got[0], GOLDEN["l1_ball_box"]["row0"], atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_plane_is_optimal_by_linear_programming(norm):
    """Independent of breakpoints: `|d_i| <= t_i` as inequalities, solved by a general method."""
    v, w, b = problem(3, (8, 7))
    bound = np.eye(7) if norm == "l1" else np.ones((7, 1))
    solved = 0
    for row, step in enumerate(np.asarray(to_plane[norm](v, w, b))):
        solution = optimize.linprog(
            np.concatenate([np.zeros(7), np.ones(bound.shape[1])]),
            A_ub=np.block([[np.eye(7), -bound], [-np.eye(7), -bound]]),
            b_ub=np.zeros(14),
            A_eq=np.concatenate([w[row], np.zeros(bound.shape[1])])[None],
            b_eq=[b[row] - w[row] @ v[row]],
            bounds=[(-v[row, i], 1 - v[row, i]) for i in range(7)] + [(0, None)] * bound.shape[1],
        )
        if solution.success:  # where the plane meets the box at all
            assert length(step[None], norm)[0] == pytest.approx(solution.fun, rel=1e-5)
            solved += 1
    assert solved >= 4


@few
@hypothesis.given(seed=st.integers(0, 2**31 - 1), kind=st.sampled_from(["plain", "zeros", "ties"]))
@pytest.mark.parametrize("norm", NORMS)
def test_plane_properties(norm, seed, kind):
    v, w, b = problem(seed, (8, 7), kind=kind)
    step = np.asarray(to_plane[norm](v, w, b), np.float64)
    size = np.abs(w).max(1) + 1e-30
    assert np.all(v + step >= -1e-6)
    assert np.all(v + step <= 1 + 1e-6)
    assert np.all(step[w == 0] == 0)
    excess = (np.sum(w.astype(np.float64) * v, 1) - b) / size
    left = (np.sum(w * (v + step), 1) - b) / size
    side = np.where(excess[:, None] >= 0, w, -w)
    most = np.sum(np.abs(w) * np.where(side > 0, v, 1 - v), 1) / size
    meets = np.abs(excess) < most
    np.testing.assert_allclose(left[meets], 0, atol=3e-5)
    corner = np.where(side > 0, 0, np.where(side < 0, 1, v))  # the plane misses the box: as near to it as possible
    np.testing.assert_allclose((v + step)[~meets], corner[~meets], atol=1e-6)
    # No random point of the box on the far side of the plane is closer.
    points = np.random.default_rng(seed).random((500, 1, 7))
    points = v + (points - v) * np.random.default_rng(seed + 1).random((500, 8, 1)) ** 2
    beyond = (np.sum(w * points, 2) - b) * np.sign(excess) <= 0
    distance = np.stack([length(points[:, row] - v[row], norm) for row in range(8)], 1)
    assert np.all(
        distance[beyond & meets] >= np.broadcast_to(length(step, norm), (500, 8))[beyond & meets] * (1 - 1e-5)
    )


@few
@hypothesis.given(seed=st.integers(0, 2**31 - 1), spread=st.sampled_from([0.01, 0.3, 5.0]), coarse=st.booleans())
def test_ball_properties(seed, spread, coarse):
    rng = np.random.default_rng(seed)
    x0, v = rng.random((8, 30)).astype(np.float32), (spread * rng.normal(size=(8, 30))).astype(np.float32)
    if coarse:
        x0, v = np.round(2 * x0) / 2, np.round(2 * v / spread) * np.float32(spread / 2)
    eps = np.concatenate([[0.0], rng.uniform(0, 4, 7)]).astype(np.float32)
    got = np.asarray(to_ball(v, x0, eps), np.float64)
    expected = np.stack([oracle.l1_ball_box(v[row], x0[row], eps[row]) for row in range(8)])
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.all(np.abs(got).sum(1) <= eps * (1 + 1e-6))
    assert np.all((x0 + got >= 0) & (x0 + got <= 1 + 1e-7))
    np.testing.assert_allclose(to_ball(got.astype(np.float32), x0, eps), got, atol=1e-6)  # again changes nothing


@pytest.mark.parametrize("norm", NORMS)
def test_image_axes_and_scale_do_not_matter(norm):
    v, w, b = problem(5, (12, 40))
    flat = to_plane[norm](v, w, b)
    images = to_plane[norm](v.reshape(12, 5, 4, 2), w.reshape(12, 5, 4, 2), b)
    np.testing.assert_allclose(images.reshape(12, 40), flat, atol=1e-5)
    excess = np.sum(w * v, 1) - b
    tiny = moved[norm](v, w * np.float32(1e-30), excess * np.float32(1e-30))
    np.testing.assert_allclose(tiny, moved[norm](v, w, excess), atol=1e-5)


def test_rows_do_not_influence_each_other_and_jit_is_eager():
    v, w, b = problem(6, (8, 7))
    together = to_plane["linf"](v, w, b)
    others = [np.where(np.arange(8).reshape(-1, *[1] * (a.ndim - 1)) == 2, a, a[::-1]) for a in (v, w, b)]
    np.testing.assert_array_equal(to_plane["linf"](*others)[2], together[2])
    np.testing.assert_allclose(projections.hyperplane_box(v, w, b, "linf"), together, atol=1e-6)


KNOWN = [  # <w, v> = -0.5 and the plane is at -1.1; then at -1.8, where the second entry has only 0.5 to give
    ("linf", -1.1, [-0.2, 0.2]),
    ("l2", -1.1, [-0.12, 0.24]),
    ("l1", -1.1, [0, 0.3]),
    ("linf", -1.8, [-0.433333, 0.433333]),
    ("l2", -1.8, [-0.3, 0.5]),
    ("l1", -1.8, [-0.3, 0.5]),
]


@pytest.mark.parametrize(("norm", "b", "answer"), KNOWN)
def test_known_answers_on_the_plane(norm, b, answer):
    v = np.tile(np.float32([0.5, 0.5, 0.9, 0, 0, 0, 0]), (8, 1))
    w = np.tile(np.float32([1, -2, 0, 0, 0, 0, 0]), (8, 1))
    np.testing.assert_allclose(to_plane[norm](v, w, np.full(8, b, np.float32))[3], [*answer, 0, 0, 0, 0, 0], atol=1e-6)


def test_known_answers_in_the_ball():
    x0, v = np.full((8, 30), 0.5, np.float32), np.zeros((8, 30), np.float32)
    x0[:, :3], v[:, :3] = [0.5, 0.9, 0.2], [0.4, 0.6, -0.5]  # the box leaves 0.4, 0.1, 0.2
    radius = np.float32([0.5, 2.0] * 4)
    np.testing.assert_allclose(to_ball(v, x0, radius)[0, :4], [0.2, 0.1, -0.2, 0], atol=1e-6)
    np.testing.assert_allclose(to_ball(v, x0, radius)[1, :4], [0.4, 0.1, -0.2, 0], atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_no_gradient_or_no_gap_no_movement(norm):
    v, ones = np.full((12, 40), 0.5, np.float32), np.ones((12, 40), np.float32)
    assert not np.any(moved[norm](v, 0 * ones, -np.ones(12, np.float32)))
    assert not np.any(moved[norm](v, ones, np.zeros(12, np.float32)))


def test_unknown_norm():
    with pytest.raises(ValueError, match="norm must be one of 'linf', 'l2', 'l1'; got 'l3'"):
        projections.hyperplane_box(jnp.ones((1, 2)), jnp.ones((1, 2)), jnp.ones(1), "l3")
