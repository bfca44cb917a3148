"""One step of training, on dense or compressed weights."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.core import unfreeze

from spartax import program, tree
from spartax.records import ApplyFn, Array, Params, Rule
from spartax.train.logs import check_names
from spartax.train.network import LOG, Loss, Network, TrainApply, attacking


class State(NamedTuple):
    """Everything that training changes.

    Attributes:
      trainable: floating arrays of the params, None elsewhere (`tree.split`): weights, factors, scales.
      fixed: the rest of the params: masks, codes.
      others: the other collections of `variables`, such as `{"batch_stats": ...}`; None when there are no collections.
      opt_state: state of the optimizer.
      step: number of steps done, int32.
      method: what a compression in training knows (`train.begin`); None without one.
      finite: False from the first step on whose loss, gradient, new weights, state of the optimizer or other variables
        were not finite: that step and all after it change nothing, so that this is the last good state and `step` says
        where it began. Where only the others broke, its weights are kept, which were finite, with the others from
        before.
      best: the best weights so far (`train.validation`); None without one.
      log: numbers that the loss of the last step gave for the logs; `train.fit` takes them out, and so must a
        `jax.lax.scan` over steps, whose state may not change its structure: `state._replace(log=None)`.
    """

    trainable: Params
    fixed: Params
    others: dict[str, Any] | None
    opt_state: Any
    step: Array
    method: Any = None
    finite: Array | bool = True
    best: Any = None
    log: Any = None

    @property
    def variables(self) -> Params:
        """What `apply` takes."""
        params = tree.merge(self.trainable, self.fixed)
        return params if self.others is None else {"params": params, **self.others}

    def part(self, which: Params, variables: Params) -> Params:
        """The params of `variables` where `which` (trainable or fixed) holds something, None elsewhere."""
        params = variables if self.others is None else variables["params"]
        return jax.tree.map(lambda old, new: None if old is None else new, which, params, is_leaf=lambda x: x is None)

    def with_params(self, variables: Params) -> "State":
        """The state with the params of `variables`, which have the structure of its own, placed like its own."""
        trainable, fixed = (
            jax.tree.map(lambda old, new: jax.device_put(new, old.sharding), old, self.part(old, variables))
            for old in (self.trainable, self.fixed)
        )
        return self._replace(trainable=trainable, fixed=fixed)


Step = Callable[[State, Array, Array, Array], tuple[State, Array]]  # (state, key, x, y) -> (state, loss)


def init_state(
    variables: Params, tx: optax.GradientTransformation, rule: Rule | None = None, method: Any = None
) -> State:
    """The state before the first step.

    Args:
      variables: a params tree, or Flax collections `{"params": ..., "batch_stats": ...}`, of which only params are
        trained. Compressed leaves are welcome. Any mapping will do; a `FrozenDict` beside params becomes a dict.
      tx: optimizer.
      rule: `(path, array) -> bool`, which floating arrays of the params are trained (`tree.split`); all when left out.
      method: from `train.begin`, for compression in training.
    """
    in_collections = isinstance(variables, Mapping) and "params" in variables
    params = variables["params"] if in_collections else variables
    others = {name: unfreeze(x) for name, x in variables.items() if name != "params"} if in_collections else None
    # copies, because `make_step` reuses the memory of a state, and an optimizer may own what it begins with
    trainable, fixed, others = jax.tree.map(jnp.array, (*tree.split(params, rule), others))
    opt_state = jax.tree.map(jnp.array, tx.init(trainable))
    return State(trainable, fixed, others, opt_state, jnp.zeros((), jnp.int32), method, jnp.array(True))


def make_step(
    loss: Loss, tx: optax.GradientTransformation, apply: ApplyFn, train_apply: TrainApply | None = None
) -> Step:
    """`step(state, key, x, y) -> (state, loss)`, compiled once. The memory of the given state is reused.

    A step that is not finite changes nothing but `state.finite`. Gradients of `k` batches are accumulated by
    `tx = optax.MultiSteps(tx, k)`: k steps of size B are then one step of size k B, but for batch normalization, which
    normalizes each batch by its own B examples and updates its statistics k times. On CPU both networks are read by
    `fast_gradients`, so that a loss of your own may not differentiate them forward (`jax.jvp`) there.

    Args:
      loss: such as `losses.clean()` or `losses.pgd_at(attack)`.
      tx: optimizer.
      apply: `apply(variables, x) -> logits [B, K]` in evaluation mode; one made by `compressed` for compressed leaves.
      train_apply: `train_apply(variables, x) -> (logits, updated collections)` in training mode, for networks with
        batch normalization: `lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"])`.

    Raises:
      ValueError: at use, a loss whose numbers for the logs have names that are taken (`train.Loss`).
    """
    apply = program.fast_gradients(apply)
    forward = program.fast_gradients(train_apply) if train_apply else lambda variables, x: (apply(variables, x), {})

    @functools.partial(jax.jit, donate_argnums=0)
    def compiled(state: State, others: Any, key: Array, x: Array, y: Array) -> tuple[State, Array]:
        state = state._replace(others=others)

        def at(trainable: Params) -> Network:
            variables = state._replace(trainable=trainable).variables
            ways = functools.partial(apply, variables), functools.partial(forward, variables)
            return Network(*ways, variables, trainable, at)

        def value(trainable: Params) -> tuple[Array, dict[str, Any]]:
            return loss(at(trainable), key, x, y)

        (total, updates), gradients = jax.value_and_grad(value, has_aux=True)(state.trainable)
        changes, opt_state = tx.update(gradients, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, changes)
        log = updates.get(LOG)
        check_names('updates["log"] of the loss', log or {})
        updates = {name: unfreeze(value) for name, value in updates.items() if name != LOG}
        others = {**state.others, **updates} if state.others is not None else None
        good = state.finite & _all_finite((total, gradients, trainable)) & _stays_finite(opt_state, state.opt_state)
        new = state._replace(trainable=trainable, others=others, opt_state=opt_state, step=state.step + 1)
        return jax.tree.map(functools.partial(jnp.where, good), new, state)._replace(finite=good, log=log), total

    def step(state: State, key: Array, x: Array, y: Array) -> tuple[State, Array]:
        bare = state._replace(others=None, method=None, best=None, log=None)  # the last three stay on the host
        new, total = compiled(bare, state.others, key, x, y)
        new = new if state.others is None else _with_good_others(new, state.others)
        return new._replace(method=state.method, best=state.best), total

    return attacking(step, like=loss)


@jax.jit
def _good_others(others: Any, before: Any, finite: Array, number: Array) -> tuple[Any, Array, Array]:
    good = _all_finite(others)
    kept = jax.tree.map(functools.partial(jnp.where, good), others, before)
    return kept, finite & good, number - (finite & ~good)


def _with_good_others(state: State, before: Any) -> State:
    """The state with the other variables from before a step where it broke them, which then does not count.

    A program of its own: what looks at statistics inside that of the step changes how they are rounded.
    """
    others, finite, number = _good_others(state.others, before, state.finite, state.step)
    return state._replace(others=others, finite=finite, step=number)


def _all_finite(values: Any) -> Array:
    return _all([jnp.isfinite(x) for x in jax.tree.leaves(values) if tree.is_floating(x)])


def _stays_finite(new: Any, old: Any) -> Array:
    """Whether an optimizer's state is finite, but for numbers that were not: some begin with an infinite best value.

    Those have no axes; of larger arrays only the new values are read, because reading is what this costs.
    """
    pairs = [(a, b) for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True) if tree.is_floating(a)]
    return _all([jnp.isfinite(a) if jnp.ndim(a) else jnp.isfinite(a) | ~jnp.isfinite(b) for a, b in pairs])


def _all(flags: list[Array]) -> Array:
    return functools.reduce(jnp.logical_and, [jnp.all(flag) for flag in flags], jnp.array(True))
