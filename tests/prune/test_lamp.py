import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.prune.allocations import lamp
from spartax.records import Evidence
from tests import plugs


@pytest.mark.parametrize(
    ("weight", "expected"),
    [([[0.1, -0.2], [0.3, 0.4]], [0.033333, 0.137931, 0.36, 1.0]), ([1.0, -2.0, 3.0], [0.071429, 0.307692, 1.0])],
)
def test_golden(weight, expected):
    score = prune.magnitude().score({"w": jnp.array(weight)}, Evidence({}))["w"]
    np.testing.assert_allclose(lamp.ranked(score), expected, atol=1e-6)


def test_definition_with_ties():
    score = np.array([2.0, 0.0, 1.0, 2.0, -3.0, 1.0])
    expected = [0 / 10, 0 / 10, 1 / 10, 1 / 9, 4 / 8, 4 / 4]
    np.testing.assert_allclose(lamp.ranked(jnp.asarray(score)), expected, rtol=1e-6)


def test_known_counts():
    """Of the seven scores above, four: 1, 1, .36 and .307692."""
    scores = {"a": jnp.array([[0.1, 0.2], [0.3, 0.4]]), "b": jnp.array([1.0, 2.0, 3.0])}
    assert prune.lamp()(scores, 3 / 7, Evidence({})) == {"a": 2, "b": 2}
    assert prune.pooled(0)(scores, 3 / 7, Evidence({})) == {"a": 1, "b": 3}


def test_the_scale_of_a_layer_does_not_matter_and_none_is_emptied():
    scores = {path: jnp.abs(w) for path, w in plugs.draw().items()}
    scaled = {path: s * 10.0 ** (i - 2) for i, (path, s) in enumerate(scores.items())}
    total = sum(s.size for s in scores.values())
    for keep in (len(scores), total // 20, total // 2):
        found = prune.lamp()(scores, 1 - keep / total, Evidence({}))
        assert found == prune.lamp()(scaled, 1 - keep / total, Evidence({}))
        assert sum(found.values()) == keep
        assert min(found.values()) >= 1
