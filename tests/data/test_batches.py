import itertools

import jax
import numpy as np
import pytest

from spartax import data

ROWS = np.arange(10, dtype=np.int32)
TEN = data.Dataset(ROWS.astype(np.float32).reshape(10, 1, 1, 1) / np.float32(10), ROWS % 3, "ten", 3, ("a", "b", "c"))


def indices(**options):
    return [index.tolist() for _, _, index in data.batches(TEN, 4, **options)]


def rows(batches):
    return list(itertools.chain.from_iterable(batches))


def test_in_order_with_a_short_last_batch():
    assert indices() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_drop_last():
    assert indices(drop_last=True, epochs=2) == [[0, 1, 2, 3], [4, 5, 6, 7]] * 2


def test_rows_belong_together():
    for x, y, index in data.batches(TEN, 3, jax.random.key(1)):
        np.testing.assert_array_equal(x[:, 0, 0, 0], index.astype(np.float32) / 10)
        np.testing.assert_array_equal(y, index % 3)
        assert (x.dtype, y.dtype, index.dtype) == (np.float32, np.int32, np.int32)


def test_shuffle_is_a_permutation_fixed_by_the_key_and_new_each_epoch():
    key = jax.random.key(0)
    got = indices(key=key, epochs=2)
    epochs = [rows(got[:3]), rows(got[3:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1] != list(range(10))
    assert indices(key=key, epochs=2) == indices(key=key, epochs=2)
    assert indices(key=key) == indices(key=key, epochs=2)[:3]  # longer training begins the same way
    assert indices(key=jax.random.key(1)) != indices(key=key)


def test_a_batch_depends_on_its_number_alone():
    """Asked for out of order, across epochs, they are those that iteration gives."""
    batches = data.batches(TEN, 4, jax.random.key(0), epochs=3)
    listed = [index.tolist() for _, _, index in batches]
    assert len(batches) == len(listed) == 9
    assert [batches[n][2].tolist() for n in (7, 1, 8, 0, 4)] == [listed[n] for n in (7, 1, 8, 0, 4)]
    for number in (9, -1):
        with pytest.raises(IndexError, match="there are 9 batches"):
            batches[number]


def test_drop_last_leaves_out_other_rows_each_epoch():
    batches = indices(key=jax.random.key(0), epochs=2, drop_last=True)
    assert [len(batch) for batch in batches] == [4] * 4
    left_out = [set(range(10)) - set(rows(batches[:2])), set(range(10)) - set(rows(batches[2:]))]
    assert left_out[0] != left_out[1]


@pytest.mark.parametrize(
    ("batch_size", "options", "message"),
    [
        (0, {}, "batch_size must be an integer of at least 1; got 0"),
        (2.0, {}, "batch_size must be an integer"),
        (4, {"epochs": 0}, "epochs must be"),
        (11, {"drop_last": True}, "batch_size must leave at least one batch of 10 examples; got 11"),
    ],
)
def test_bad_arguments_fail_at_the_call(batch_size, options, message):
    with pytest.raises(ValueError, match=message):
        data.batches(TEN, batch_size, **options)
