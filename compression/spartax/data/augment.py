"""Random crops and flips on the device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from spartax import checks
from spartax.records import Array


def augment(pad: int = 4, *, fill: str = "zero", flip: bool = True) -> Callable[..., Array]:
    """Shift each image by up to `pad` pixels on both axes and mirror it left to right with probability one half.

    The image is padded by `pad` pixels on every side and cut back to its size at a random place. The classic CIFAR
    augmentation is `pad=4` with zeros and flips; digits must not be flipped.

    Args:
      pad: largest shift in pixels; 0 shifts nothing.
      fill: what is shifted in, `"zero"` (black) or `"reflect"` (the image mirrored at its border pixel).
      flip: whether to mirror.

    Returns:
      A jitted `(key, x, index=None) -> x` for images [B, H, W, C]. Row `i` uses `fold_in(key, index[i])` (the row
      number when `index` is left out), so that its result does not depend on the rest of the batch.

    Raises:
      ValueError: `pad` is not a natural number or `fill` is unknown.
    """
    checks.positive_int("pad", pad, least=0)
    checks.one_of("fill", fill, ("zero", "reflect"))
    mode = {"zero": "constant", "reflect": "reflect"}[fill]

    def one(key: Array, image: Array) -> Array:
        crop_key, flip_key = jax.random.split(key)
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
        row, column = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
        image = jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)
        return jnp.where(flip & jax.random.bernoulli(flip_key), image[:, ::-1], image)

    @jax.jit
    def apply(key: Array, x: Array, index: Array | None = None) -> Array:
        index = jnp.arange(x.shape[0]) if index is None else index
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return jax.vmap(one)(keys, x)

    return apply
