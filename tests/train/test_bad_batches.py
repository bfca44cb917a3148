"""Batches that would be trained on without a word, and spoil the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spartax import attacks, sharding, train

KEY, TX = jax.random.key(0), optax.sgd(0.1)
X, Y = np.random.default_rng(0).random((8, 4), np.float32), np.arange(8, dtype=np.int32) % 3


def apply(params, x):
    return x @ params["w"]


CLEAN = train.make_step(train.clean(), TX, apply)
ATTACKED = train.make_step(train.awp(train.pgd_at(attacks.fgsm(0.1))), TX, apply)


def run(step, *batches, mesh=None):
    params = {"w": jnp.full((4, 3), 0.5)}
    return train.fit(step, train.init_state(params, TX), batches, KEY, mesh=mesh, progress=False)


@pytest.mark.parametrize(
    ("step", "batch", "said"),
    [
        (CLEAN, (X[:6], Y), r"batches\[1\] must hold one label for each image; got 6 images, 8 labels"),
        (CLEAN, (X, Y - 1), r"y of batches\[1\] must lie in \[0, inf\); got values from -1 to 1"),
        (CLEAN, (X, Y / 1.0), r"y of batches\[1\] must be an integer array \[B\]; got float64"),
        (CLEAN, (np.where(X < 0.1, np.nan, X), Y), r"x of batches\[1\] holds NaN or infinite values"),
        (ATTACKED, (X * 255, Y), r"x of batches\[1\] must lie in \[0.0, 1.0\]; got values from .* to 2"),
    ],
)
def test_a_bad_batch_is_named_and_the_state_before_it_kept(step, batch, said):
    good, losses = run(step, (X, Y))
    with pytest.raises(train.BadBatchError, match=said) as caught:
        run(step, (X, Y), batch, (X, Y))
    np.testing.assert_array_equal(caught.value.state.variables["w"], good.variables["w"])
    np.testing.assert_array_equal(caught.value.losses, losses)


def test_without_an_attack_images_may_have_any_range():
    assert np.isfinite(run(CLEAN, (X * 255, Y))[1]).all()


def test_of_batches_on_devices_the_first_is_checked():
    with pytest.raises(ValueError, match=r"y of batches\[0\] must lie in"):
        run(CLEAN, (jnp.asarray(X), jnp.asarray(Y - 1)))
    mesh = sharding.mesh()
    with pytest.raises(ValueError, match=r"x of batches\[0\] must lie in"):
        run(ATTACKED, sharding.shard_batch((X * 255, Y), mesh), mesh=mesh)


def test_labels_beyond_the_classes_are_suspected_first():
    with pytest.raises(train.NotFiniteError, match="became nan at step 1; look for labels beyond the classes"):
        run(CLEAN, (X, Y + 1))


@pytest.mark.parametrize("batch", [(X[:0], Y[:0]), (jnp.asarray(X[:0]), jnp.asarray(Y[:0]))])
def test_an_empty_batch_is_named(batch):
    with pytest.raises(train.BadBatchError, match=r"batches\[1\] must hold at least one example; got none"):
        run(CLEAN, (X, Y), batch)
