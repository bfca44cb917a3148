import jax.numpy as jnp
import numpy as np

from spartax import prune
from spartax.prune.allocations import er, erk
from spartax.records import Evidence, Layout
from tests import plugs

SHAPES = {"a": (3, 3, 3, 16), "b": (3, 3, 16, 16), "c": (3, 3, 16, 32), "d": (3, 3, 32, 64), "e": (64, 10)}
LAYOUTS = {path: Layout(tuple(range(len(shape) - 1)), (len(shape) - 1,)) for path, shape in SHAPES.items()}


def test_golden():
    """Fans without the spatial axes; ERK gives the last layer all its weights, ER a third."""
    sizes = {path: int(np.prod(shape)) for path, shape in SHAPES.items()}
    raw = {path: er._raw(SHAPES[path], LAYOUTS[path], True) for path in SHAPES}
    found = list(erk.densities(raw, sizes, 0.2).values())
    np.testing.assert_allclose(found, [1.0, 0.3657418577, 0.2743063932, 0.1371531966, 0.3383112183], rtol=1e-6)
    counts = prune.er()({path: jnp.zeros(shape) for path, shape in SHAPES.items()}, 0.8, Evidence(LAYOUTS))
    assert counts == {"a": 432, "b": 843, "c": 1264, "d": 2528, "e": 217}


def test_several_input_axes_are_features_where_the_program_says_so():
    """[4, 6, 5] contracted over (4, 6) by a dot: 24 inputs; taken for a convolution: 6."""
    layout = {"w": Layout((0, 1), (2,)), "v": Layout((0,), (1,))}
    scores = {"w": jnp.zeros((4, 6, 5)), "v": jnp.zeros((30, 4))}
    dot = plugs.statistics()["uses"]["dense"]
    as_dot = prune.er()(scores, 0.7, Evidence(layout, uses={"w": dot, "v": dot}))
    as_conv = prune.er()(scores, 0.7, Evidence(layout))
    raw = (29 / 120, 34 / 120)
    assert as_dot == {"w": round(72 * raw[0] / sum(raw)), "v": round(72 * raw[1] / sum(raw))}
    assert as_conv["w"] > as_dot["w"]
