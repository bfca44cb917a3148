import jax.numpy as jnp
import numpy as np
import pytest

from spartax import prune
from spartax.records import Evidence

RAMP = np.arange(1, 101) / 100


@pytest.mark.parametrize(
    ("weight", "norms", "expected"),
    [
        (np.full(7, -3.0), (0.5, 1.0), 0.0),
        (np.eye(64)[3], (0.5, 1.0), 0.984375),
        (RAMP, (0.5, 1.0), 0.1072029914),
        (RAMP, (1.0, 2.0), 0.131822977),
        (RAMP**3, (0.5, 1.0), 0.3567888688),
        (RAMP**3, (1.0, 2.0), 0.3368860188),
        (np.zeros(5), (0.5, 1.0), 0.0),
    ],
)
def test_pq_index_golden(weight, norms, expected):
    assert float(prune.pq_index(jnp.asarray(weight), *norms)) == pytest.approx(expected, abs=2e-6)


def test_pq_index_does_not_see_scale_copies_and_masked_entries():
    weight = jnp.asarray(RAMP**3 * 1e-9, jnp.float32)
    twice = jnp.concatenate([weight, weight])
    padded = jnp.concatenate([weight, jnp.zeros(50)])
    mask = jnp.arange(150) < 100
    for found in (weight, twice):
        assert float(prune.pq_index(found)) == pytest.approx(0.3567889, abs=1e-5)
    assert float(prune.pq_index(padded, mask=mask)) == pytest.approx(0.3567889, abs=1e-5)
    assert float(prune.pq_index(padded)) > 0.5
    assert float(prune.pq_index(weight, 0.1, 1.0)) < 1.0


@pytest.mark.parametrize(
    ("score", "options", "removed"),
    [
        (RAMP, {}, 10),
        (RAMP**3, {}, 35),
        (RAMP**3, {"p": 1.0, "q": 2.0}, 56),
        (RAMP**3, {"gamma": 0.5}, 17),
        (RAMP**3, {"gamma": 5.0}, 90),
        (RAMP, {"eta": 0.1}, 26),
    ],
)
def test_sap_golden(score, options, removed):
    """d = 100: m = 90, 65, 44; eta: ceil(100 * 1.1^-2 * 0.8928) = 74."""
    counts = prune.sap(**options)({"w": jnp.asarray(score, jnp.float32)}, 0.9, Evidence({}))
    assert counts == {"w": 100 - removed}


def test_what_is_masked_already_does_not_count_and_sparsity_is_the_most():
    score = jnp.concatenate([jnp.zeros(40), jnp.asarray(RAMP**3, jnp.float32)])
    assert prune.sap()({"w": score}, 0.9, Evidence({})) == {"w": 65}
    assert prune.sap()({"w": score}, 0.2, Evidence({})) == {"w": 80}


def test_one_index_over_all():
    """Together a flat layer and one of outliers are one sparse vector, whose smallest entries go from both."""
    scores = {"flat": jnp.full(50, 0.1), "peaked": jnp.asarray(RAMP**3, jnp.float32)}
    both = jnp.concatenate(list(scores.values()))
    keep = int(np.ceil(150 * (1 - float(prune.pq_index(both)))))
    order = np.argsort(-np.asarray(both), kind="stable")[:keep]
    expected = {"flat": int((order < 50).sum()), "peaked": int((order >= 50).sum())}
    assert prune.sap(scope="global")(scores, 0.9, Evidence({})) == expected
    assert prune.sap()(scores, 0.9, Evidence({})) == {"flat": 50, "peaked": 65}


@pytest.mark.parametrize("options", [{"p": 1.0}, {"p": 0.0}, {"eta": -1.0}, {"gamma": -1.0}, {"scope": "neuron"}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="must"):
        prune.sap(**options)
