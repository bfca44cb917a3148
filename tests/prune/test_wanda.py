import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.records import Evidence, Layout
from tests import plugs
from tests.oracles import golden


def test_golden_and_better_than_magnitude_in_the_same_groups():
    kernel, given = golden.calibrated()
    found = {}
    for name, criterion in {"wanda": prune.wanda(), "magnitude": prune.magnitude()}.items():
        transform = prune.prune(criterion, 0.5, prune.uniform(), prune.per_output())
        found[name] = plugs.run(transform, kernel, given)[0]["w"]
    np.testing.assert_array_equal(np.asarray(found["wanda"].mask)[:, 0], golden.NUMBERS["wanda50_row0"])
    errors = {name: golden.output_error(plugs.dense(w)) for name, w in found.items()}
    np.testing.assert_allclose(errors["wanda"], golden.NUMBERS["wanda50_err"], rtol=1e-5)
    np.testing.assert_allclose(errors["magnitude"], golden.NUMBERS["magnitude50_per_output_err"], rtol=1e-5)


def test_scores_of_a_stack_and_of_groups_use_their_own_inputs():
    """Two layers, and two groups of a 1 x 1 convolution, whose inputs have the sizes 1, 2 and 3, 4."""
    moments = jnp.array([[[1.0, 9.0], [9.0, 4.0]], [[9.0, 0.0], [0.0, 16.0]]])
    stack = -jnp.ones((2, 2, 3))
    score = prune.wanda().score({"w": stack}, Evidence({"w": Layout((1,), (2,), (0,))}, moments={"w": moments}))["w"]
    np.testing.assert_allclose(score, np.broadcast_to(np.array([[1, 2], [3, 4]])[:, :, None], (2, 2, 3)))
    grouped = Evidence({"w": Layout((0, 1, 2), (3,), groups=2)}, moments={"w": moments})
    score = prune.wanda().score({"w": jnp.ones((1, 1, 2, 4))}, grouped)["w"]
    np.testing.assert_allclose(score[0, 0], [[1, 1, 3, 3], [2, 2, 4, 4]])


def test_an_input_that_is_always_zero_is_named():
    kernel, given = golden.calibrated()
    with pytest.raises(ValueError, match="wanda: the input of w is zero everywhere"):
        prune.wanda().score(kernel, given._replace(moments={"w": jnp.zeros((16, 16))}))
