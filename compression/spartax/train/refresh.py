"""Compression inside training: masks that are refreshed on the schedule of their method."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from spartax import records, tree
from spartax.arrays import Masked, dense, is_leaf
from spartax.compress import measure, select
from spartax.records import ApplyFn, Array, Evidence, Info, Layout, Params, Path, Rule, Transform, Weights
from spartax.train.averages import is_left_out, restart_averages
from spartax.train.network import Loss, Network, TrainApply
from spartax.train.step import State


class Method(NamedTuple):
    """What a compression in training knows from one refresh to the next.

    Attributes:
      state: of the transform.
      layouts: weight path -> `Layout` of the selected weights.
      info: what the last refresh did to each weight.
    """

    state: Any
    layouts: Mapping[Path, Layout]
    info: Info


class Refresh(NamedTuple):
    """When and how a training loop refreshes masks.

    Attributes:
      due: `step -> bool`.
      update: `(state, key, x [B, ...], y [B]) -> state`, outside `jit`.
    """

    due: Callable[[int], bool]
    update: Callable[[State, Array, Array, Array], State]


def begin(
    transform: Transform,
    apply: ApplyFn,
    variables: Params,
    x: Any,
    key: Array,
    rule: Rule | None = None,
) -> tuple[Params, Method]:
    """Wrap the weights once, before `train.init_state(variables, tx, method=method)`; the structure is final then.

    Which weights is decided as in `spartax.compress`. Nothing is measured here: gradients and statistics come with the
    refreshes, so in a chain a method that needs them cannot be due at step 0.

    Args:
      transform: such as `prune.rigl(end=...)` or `prune.prune(..., schedule=prune.cubic(...))`.
      apply: `apply(variables, x) -> logits [B, K]`.
      variables: a params tree or Flax collections; paths are those of this tree (`"params/conv1/kernel"`).
      x: a batch of inputs or its `jax.ShapeDtypeStruct`.
      key: PRNG key, for methods that draw their first masks.
      rule: `(path, weight) -> bool`, in place of the default.

    Returns:
      The variables with compressed leaves, and what `init_state` takes as `method`.

    Raises:
      ValueError: as `spartax.compress`.
    """
    evidence, _ = select(apply, variables, x, key, rule, transform.needs)
    if transform.check is not None:
        transform.check(variables, evidence)
    variables, state = transform.init(variables, evidence._replace(step=0))
    return variables, Method(state, evidence.layouts, {})


def make_refresh(
    transform: Transform,
    loss: Loss,
    tx: optax.GradientTransformation,
    apply: ApplyFn,
    train_apply: TrainApply | None = None,
    judge: records.Loss | None = None,
) -> Refresh:
    """What `train.fit(..., refresh=)` calls on the steps that are due for `transform`.

    The evidence of a refresh is of the batch of its step: `grads` are those of the training loss in the dense weights
    of the network as it is masked now; statistics that `spartax.collect` measures are taken in evaluation mode. Entries
    that come back begin with fresh moments and averages. Compiled code is that of the training step: new masks are new
    values.

    Args:
      transform: the one given to `begin`.
      loss: the training loss.
      tx: the optimizer.
      apply: `apply(variables, x) -> logits [B, K]` that accepts compressed leaves.
      train_apply: as in `make_step`.
      judge: `(logits, y) -> [B]`, for methods that need an objective or the second moments of output gradients.
    """
    forward = train_apply or (lambda variables, x: (apply(variables, x), {}))

    @jax.jit
    def restart(opt_state: Any, grown: Params, trainable: Params) -> Any:
        return restart_averages(restart_moments(tx, opt_state, grown), grown, trainable)

    gradients = _gradients(loss, apply, forward)

    def update(state: State, key: Array, x: Array, y: Array) -> State:
        variables, method = state.variables, state.method
        if not isinstance(method, Method):
            raise ValueError(f"state.method must be the Method that train.begin gave; got {type(method).__name__}.")
        evidence = Evidence(method.layouts, key=key, step=int(state.step))
        needs = transform.needs - {"grads"}
        evidence = evidence._replace(**measure(needs, apply, variables, method.layouts, ((x, y),), judge))
        if "grads" in transform.needs:
            bare = state._replace(opt_state=None, method=None, best=None, log=None)
            evidence = evidence._replace(grads=gradients(tuple(method.layouts), bare, key, x, y))
        new, inner, info = transform.update(variables, method.state, evidence)
        grown = state.part(state.trainable, jax.tree.map(_grown, new, variables, is_leaf=is_leaf))
        state = state.with_params(new)
        opt_state = restart(state.opt_state, grown, state.trainable)
        return state._replace(opt_state=opt_state, method=Method(inner, method.layouts, info))

    return Refresh(transform.due, update)


def _gradients(loss: Loss, apply: ApplyFn, forward: TrainApply) -> Callable[..., Weights]:
    """`(paths, state, key, x, y) -> gradients` in the dense weights of these paths, of the network as it is masked."""

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(paths: tuple[Path, ...], state: State, key: Array, x: Array, y: Array) -> Weights:
        def value(offsets: Weights) -> Array:
            def at(trainable: Params) -> Network:
                variables = state._replace(trainable=trainable).variables
                # weights move under their masks, as in a step; the offsets reach what is removed too
                weights = {path: dense(w) + offsets[path] for path, w in tree.pick(variables, paths).items()}
                put = tree.replace(variables, weights)
                return Network(functools.partial(apply, put), functools.partial(forward, put), put, trainable, at)

            return loss(at(state.trainable), key, x, y)[0]

        return jax.grad(value)({p: jnp.zeros_like(dense(w)) for p, w in tree.pick(state.variables, paths).items()})

    return gradients


def restart_moments(tx: optax.GradientTransformation, opt_state: Any, grown: Params) -> Any:
    """The state of an optimizer whose moments are zero where `grown` is True.

    Parts of the params that a transformation does not move (`optax.partition`, `optax.masked`) have no moments in it.

    Args:
      tx: the optimizer that made the state.
      opt_state: its state.
      grown: bool arrays (or single bools) in the structure of the trained params.
    """

    def restarted(moment: Any, fresh: Any) -> Any:
        return moment if is_left_out(moment) else jnp.where(fresh, 0, moment).astype(moment.dtype)

    return optax.tree_utils.tree_map_params(tx.init, restarted, opt_state, grown, is_leaf=is_left_out)


def _grown(new: Any, old: Any) -> Any:
    """Which entries of a weight came back: False for whatever has no mask."""
    if not isinstance(new, Masked) or is_leaf(new.weight):
        return jax.tree.map(lambda _: False, new)
    return Masked(dense(new.mask) & ~dense(old.mask), False)
