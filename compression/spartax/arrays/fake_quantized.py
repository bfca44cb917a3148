"""`FakeQuantized`: a weight in training that is rounded wherever it is used."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from spartax.arrays import elementwise, verbs
from spartax.arrays.quantized import renamed
from spartax.records import Array


class Quantizer(Protocol):
    """How numbers are rounded in training: a pytree dataclass of what is learnt, with two functions."""

    def __call__(self, x: Array, features: int) -> Array:
        """The rounded x (same shape, float32), its derivative going straight through.

        `features` entries of x share one parameter, which scales the gradient of that.
        """
        ...

    def store(self, weight: Array, kind: str) -> Any:
        """The leaf (or array) of dtype `kind` that keeps the rounded weight in few bytes; of weights alone."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FakeQuantized(verbs.Leaf):
    """`dense = quantizer(weight)`; the weight itself stays float, and the optimizer moves it below the rounding.

    `pack` gives the codes alone, with the same dense weight.

    Attributes:
      weight: floating array, the master copy.
      quantizer: its arrays have as many axes as the weight, each of length 1 or that of the weight.
      kind: name of the dense dtype; that of the weight when empty.
    """

    weight: Array
    quantizer: Quantizer
    kind: str = dataclasses.field(default="", metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.weight.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the dense weight."""
        return np.dtype(jnp.dtype(self.kind)) if self.kind else verbs.float_dtype(self.weight)


@verbs.dense.register
def _(leaf: FakeQuantized) -> Array:
    shared = max((x.size for x in jax.tree.leaves(leaf.quantizer)), default=1)
    return leaf.quantizer(leaf.weight, leaf.weight.size // shared).astype(leaf.dtype)


@verbs.pack.register
def _(leaf: FakeQuantized) -> Any:
    """What only training needs is dropped."""
    return verbs.pack(leaf.quantizer.store(leaf.weight, leaf.dtype.name))


@verbs.reshape.register
def _(leaf: FakeQuantized, shape: tuple[int, ...]) -> FakeQuantized | None:
    """Where one parameter holds for the whole weight."""
    if any(x.size > 1 for x in jax.tree.leaves(leaf.quantizer)):
        return None
    single = jax.tree.map(lambda x: x.reshape((1,) * len(shape)), leaf.quantizer)
    return dataclasses.replace(leaf, weight=leaf.weight.reshape(shape), quantizer=single)


@verbs.sliceable.register
def _(leaf: FakeQuantized) -> bool:
    return all(x.shape[0] == leaf.shape[0] for x in jax.tree.leaves(leaf.quantizer))


@verbs.map_arrays.register
def _(leaf: FakeQuantized, fn) -> FakeQuantized:
    raise ValueError("this weight is quantized in training already; quantize once, or restore the dense weight first.")


verbs.transpose.register(FakeQuantized)(elementwise.transpose)
verbs.astype.register(FakeQuantized)(renamed)  # the weight is rounded as before, and then cast
