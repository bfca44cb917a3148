"""Which layers an attack moves most."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spartax import checks
from spartax.records import Array, Params

Activations = Callable[[Params, Array], Mapping[str, Array]]  # (variables, x [B, ...]) -> {layer: phi [B, ...]}


def sustainability(activations: Activations, variables: Params, x: Array, attacked: Array) -> dict[str, float]:
    """`mean_i |phi_l(x_i) - phi_l(x_i')| / |phi_l(x_i)|` of every layer: 0 for a layer that the attack does not move.

    See Khalooei, Homayounpour and Amirmazlaghani, Layer-wise Regularized Adversarial Training using Layers
    Sustainability Analysis framework (arXiv 2202.02626).

    Args:
      activations: `(variables, x) -> {name: phi [B, ...]}`, outputs of the activation functions, as a Flax module gives
        with `capture_intermediates`.
      variables: what `activations` takes.
      x: images `[B, ...]`.
      attacked: the same, attacked.
    """

    @jax.jit
    def measure(variables: Params, x: Array, attacked: Array) -> dict[str, Array]:
        before, after = activations(variables, x), activations(variables, attacked)
        return {name: jnp.mean(relative_change(before[name], after[name])) for name in before}

    return {name: float(value) for name, value in measure(variables, x, attacked).items()}


def most_vulnerable(measured: Mapping[str, float], *, deviations: float = 1.0) -> list[str]:
    """The layers above the mean by `deviations` standard deviations (of all layers), or the single worst if none is.

    Raises:
      ValueError: nothing was measured, deviations below 0.
    """
    checks.in_range("deviations", deviations, 0.0, float("inf"), open_high=True)
    if not measured:
        raise ValueError("measured must hold at least one layer; got none.")
    values = np.array(list(measured.values()))
    limit = min(values.mean() + deviations * values.std(), values.max())
    return [name for name, value in measured.items() if value >= limit]


def relative_change(before: Array, after: Array) -> Array:
    """`|before - after|_2 / |before|_2` of each example, float32 [B]; a dead layer does not divide by zero."""
    before, after = (z.reshape(z.shape[0], -1).astype(jnp.float32) for z in (before, after))
    # both lengths are bounded below: at zero their gradient would be NaN
    return optax.safe_norm(before - after, 1e-12, axis=1) / optax.safe_norm(before, 1e-6, axis=1)
