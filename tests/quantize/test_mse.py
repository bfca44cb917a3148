import jax.numpy as jnp
import numpy as np
import pytest

from spartax import quantize
from spartax.quantize.codes import decode, encode
from spartax.quantize.records import Part
from spartax.records import Evidence, Layout

DENSE = Layout((0,), (1,))
PART = Part("w", DENSE, Evidence({"w": DENSE}))
HEAVY = np.random.default_rng(0).standard_t(2, size=(64, 4)).astype(np.float32)


def errors(weight, scales, grid, power=2.0):
    near = np.asarray(decode(encode(jnp.asarray(weight), scales, grid), scales, grid))
    return (np.abs(near - weight) ** power).sum(0)


@pytest.mark.parametrize("power", [2.0, 2.4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_against_trying_every_share(power, symmetric):
    """One column after the other in float64; the error is compared, for two shares may be nearly as good."""
    grid = quantize.integer(3, symmetric=symmetric)
    scales = quantize.mse(power).fit(jnp.asarray(HEAVY), grid, PART)
    for column, got in enumerate(errors(HEAVY, scales, grid, power)):
        w = HEAVY[:, column].astype(np.float64)
        tried = []
        for i in range(80):
            low, high = ((1 - i / 100) * v for v in (w.min(), w.max()))
            scale = max(-low, high) / 3 if symmetric else (high - low) / 7
            zero = 0 if symmetric else -4 + round(-low / scale)
            codes = np.clip(np.round(w / scale) + zero, -3 if symmetric else -4, 3)
            tried.append((np.abs((codes - zero) * scale - w) ** power).sum())
        np.testing.assert_allclose(got, min(tried), rtol=1e-4)
        assert min(tried) < 0.95 * tried[0]


def test_what_nothing_is_gained_by_stays_whole():
    """Two magnitudes are codes of the whole range."""
    weight = jnp.asarray([[7.0], [-1.0], [3.0], [5.0]])
    scales = quantize.mse().fit(weight, quantize.integer(4), PART)
    np.testing.assert_array_equal(scales.scale, [[1.0]])


def test_floats_in_shared_exponents_are_no_worse_than_absmax():
    grid = quantize.mx(group=32)
    best, plain = (c.fit(jnp.asarray(HEAVY), grid, PART) for c in (quantize.mse(), quantize.absmax()))
    gain = errors(HEAVY, best, grid) / errors(HEAVY, plain, grid)
    assert (gain <= 1).all()


@pytest.mark.parametrize(
    ("options", "name"), [({"power": 0}, "power"), ({"shares": 0}, "shares"), ({"shares": 101}, "shares")]
)
def test_bad_options(options, name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        quantize.mse(**options)
