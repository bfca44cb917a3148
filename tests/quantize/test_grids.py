import pytest

from spartax import quantize
from spartax.records import Layout

CONV = Layout((0, 1, 2), (3,))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"channel": False}, (1, 1, 1, 1)),
        ({}, (1, 1, 1, 6)),
        ({"group": 4}, (3, 3, 2, 6)),
        ({"group": 1}, (3, 3, 8, 6)),
        ({"group": 8}, (3, 3, 1, 6)),
    ],
)
def test_scales_of_a_convolution(options, shape):
    assert quantize.integer(**options).scale_shape((3, 3, 8, 6), CONV) == shape


def test_scales_of_other_layouts():
    assert quantize.integer(group=4).scale_shape((16, 6), Layout((0,), (1,))) == (4, 6)
    assert quantize.integer(group=4).scale_shape((6, 16), Layout((1,), (0,))) == (6, 4)
    assert quantize.integer().scale_shape((6, 16), Layout((1,), (0,))) == (6, 1)
    assert quantize.integer().scale_shape((5, 16, 6), Layout((1,), (2,), (0,))) == (5, 1, 6)
    assert quantize.integer(channel=False).scale_shape((5, 16, 6), Layout((1,), (2,), (0,))) == (5, 1, 1)
    assert quantize.integer().scale_shape((12, 2, 8), Layout((0,), (1, 2))) == (1, 2, 8)


@pytest.mark.parametrize(
    ("bits", "symmetric", "codes"),
    [(8, True, (-127, 127)), (4, True, (-7, 7)), (4, False, (-8, 7)), (2, True, (-1, 1)), (2, False, (-2, 1))],
)
def test_codes(bits, symmetric, codes):
    assert quantize.integer(bits, symmetric=symmetric).codes == codes


@pytest.mark.parametrize("options", [{"bits": 1}, {"bits": 9}, {"bits": 4.0001}, {"scale_dtype": "int8"}])
def test_unknown_values(options):
    with pytest.raises(ValueError, match="must be one of"):
        quantize.integer(**options)


@pytest.mark.parametrize("group", [0, -4, 2.5])
def test_bad_group(group):
    with pytest.raises(ValueError, match="group must be an integer"):
        quantize.integer(group=group)


def test_groups_across_channels_are_refused():
    with pytest.raises(ValueError, match="channel must be True when group is given"):
        quantize.integer(group=8, channel=False)


def test_a_group_that_does_not_divide():
    with pytest.raises(ValueError, match="has 16 entries; got group=5"):
        quantize.integer(group=5).scale_shape((16, 6), Layout((0,), (1,)))
