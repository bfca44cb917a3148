import jax
import numpy as np
import pytest

from spartax import data

IMAGES = np.random.RandomState(0).rand(64, 5, 6, 2).astype(np.float32)
ZERO, REFLECT = data.augment(pad=1), data.augment(pad=1, fill="reflect")


def candidates(image, pad, mode, flip):
    """Every possible outcome, by slicing, as `{(row, column, flipped): image}`."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
    height, width, _ = image.shape
    found = {}
    for row in range(2 * pad + 1):
        for column in range(2 * pad + 1):
            cut = padded[row : row + height, column : column + width]
            found[row, column, False] = cut
            if flip:
                found[row, column, True] = cut[:, ::-1]
    return found


def outcome(result, image, pad, mode, flip):
    matches = [k for k, v in candidates(image, pad, mode, flip).items() if np.array_equal(v, result)]
    assert len(matches) == 1, "the result is no slice of the padded image"
    return matches[0]


@pytest.mark.parametrize(("augment", "mode"), [(ZERO, "constant"), (REFLECT, "reflect")])
def test_every_result_is_a_slice_of_the_padded_image(augment, mode):
    out = np.asarray(augment(jax.random.key(0), IMAGES))
    seen = [outcome(result, image, 1, mode, True) for result, image in zip(out, IMAGES, strict=True)]
    assert len(set(seen)) > 14  # of 18: rows have keys of their own
    flips = np.mean([flipped for _, _, flipped in seen])
    assert 0.3 < flips < 0.7
    for axis in (0, 1):
        shifts = np.bincount([s[axis] for s in seen], minlength=3) / len(seen)
        assert np.all(np.abs(shifts - 1 / 3) < 0.2)


def test_without_pad_and_flip_nothing_changes():
    np.testing.assert_array_equal(data.augment(pad=0, flip=False)(jax.random.key(0), IMAGES), IMAGES)


def test_only_flips():
    out = np.asarray(data.augment(pad=0)(jax.random.key(0), IMAGES))
    flipped = [outcome(r, i, 0, "constant", True)[2] for r, i in zip(out, IMAGES, strict=True)]
    assert 0 < sum(flipped) < len(flipped)


def test_a_row_depends_on_its_index_only():
    order = np.random.RandomState(1).permutation(64).astype(np.int32)
    whole = ZERO(jax.random.key(5), IMAGES)
    np.testing.assert_array_equal(ZERO(jax.random.key(5), IMAGES[order], order), whole[order])
    assert not np.array_equal(ZERO(jax.random.key(6), IMAGES), whole)


def test_errors():
    with pytest.raises(
        ValueError, match=r"fill must be one of 'zero', 'reflect'; got 'reflected'. Did you mean 'reflect'"
    ):
        data.augment(fill="reflected")
    with pytest.raises(ValueError, match="pad must be an integer of at least 0; got -1"):
        data.augment(pad=-1)
