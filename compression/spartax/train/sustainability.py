"""Which layers an attack moves most."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spartax import checks
from spartax.records import Array, Params

LEAST = 1e-12  # of a length
SILENT = 1e-2  # examples whose outputs are at most this part of the mean length of their layer have no ratio
Activations = Callable[[Params, Array], Mapping[str, Array]]  # (variables, x [B, ...]) -> {layer: phi [B, ...]}


def sustainability(activations: Activations, variables: Params, x: Array, attacked: Array) -> dict[str, float]:
    """`mean_i |phi_l(x_i) - phi_l(x_i')| / |phi_l(x_i)|` of every layer: 0 for a layer that the attack does not move.

    Examples for which a layer is silent before the attack, at most a hundredth as long as on average, are left out of
    its mean: whatever wakes them would count without bound. A layer that is silent for all of them counts 0.

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
        return {name: relative_change(before[name], after[name]) for name in before}

    return {name: float(value) for name, value in measure(variables, x, attacked).items()}


def most_vulnerable(measured: Mapping[str, float], *, deviations: float = 1.0) -> list[str]:
    """The layers above the mean by `deviations` standard deviations (of all layers), or the single worst if none is.

    Args:
      measured: layer -> how far it is moved, 0 or more, from `sustainability`.
      deviations: 0 or more.

    Raises:
      ValueError: nothing was measured, a layer that holds NaN, infinity or a number below 0, deviations below 0.
    """
    checks.in_range("deviations", deviations, 0.0, float("inf"), open_high=True)
    if not measured:
        raise ValueError("measured must hold at least one layer; got none.")
    for name, value in measured.items():
        checks.in_range(f"measured[{name!r}]", float(value), 0.0, float("inf"), open_high=True)
    values = np.array(list(measured.values()))
    limit = min(values.mean() + deviations * values.std(), values.max())
    return [name for name, value in measured.items() if value >= limit]


def relative_change(before: Array, after: Array) -> Array:
    """Mean of `|before - after|_2 / |before|_2` over the examples not silent before, float32; 0 without any."""
    before, after = (z.reshape(z.shape[0], -1).astype(jnp.float32) for z in (before, after))
    # lengths are bounded below: at zero their gradient would be NaN
    moved, length = (optax.safe_norm(z, LEAST, axis=1) for z in (before - after, before))
    silent = length <= jnp.maximum(SILENT * jnp.mean(length), LEAST)  # not so where it is NaN, which is told
    ratios = jnp.where(silent, 0, moved / jnp.where(silent, 1, length))
    return jnp.sum(ratios) / jnp.maximum(jnp.sum(~silent), 1)
