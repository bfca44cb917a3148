import numpy as np
import pytest
from sklearn import datasets

from spartax import data

SPLITS = ("train", "val", "test")


def test_all_is_the_original():
    got = data.digits("all")
    images = datasets.load_digits().images
    assert got.x.shape == (1797, 8, 8, 1)
    assert got.x.dtype == np.float32
    assert got.y.dtype == np.int32
    np.testing.assert_array_equal(got.x[..., 0] * 16, images)
    np.testing.assert_array_equal(got.y[:12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    assert got.x.min() == 0
    assert got.x.max() == 1
    assert got[2:] == ("digits/all", 10, tuple("0123456789"))


def test_splits_are_disjoint_and_complete():
    parts = [data.digits(split) for split in SPLITS]
    assert [len(part.y) for part in parts] == [1253, 180, 364]

    def rows(part):
        return sorted((*x.ravel().tolist(), int(y)) for x, y in zip(part.x, part.y, strict=True))

    together = sorted(row for part in parts for row in rows(part))
    assert together == rows(data.digits("all"))
    assert len(set(map(tuple, together))) == 1797  # no image twice, so equal multisets mean disjoint parts


@pytest.mark.parametrize(("split", "share"), [("train", 0.7), ("val", 0.1), ("test", 0.2)])
def test_splits_are_stratified(split, share):
    counts = np.bincount(data.digits(split).y, minlength=10)
    totals = np.bincount(data.digits("all").y)
    assert np.all(np.abs(counts - share * totals) <= 1)


def test_split_never_changes():
    """Stored once: published results depend on it."""
    first = {split: data.digits(split).y[:10].tolist() for split in SPLITS}
    assert first == STORED_LABELS
    sums = {split: round(float(data.digits(split).x.sum(dtype=np.float64)) * 16) for split in SPLITS}
    assert sums == STORED_SUMS


STORED_LABELS = {
    "train": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    "val": [0, 5, 5, 5, 2, 4, 2, 1, 6, 4],
    "test": [1, 4, 8, 6, 5, 9, 9, 1, 3, 2],
}
STORED_SUMS = {"train": 391747, "val": 56186, "test": 113785}


def test_unknown_split():
    with pytest.raises(ValueError, match=r"split must be one of 'train', 'val', 'test', 'all'; got 'valid'"):
        data.digits("valid")


def test_load_by_name():
    np.testing.assert_array_equal(data.load("digits", "val").x, data.digits("val").x)
