"""Ever smaller students, each taught by the one before; together they are an ensemble."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spartax import checks
from spartax.records import ApplyFn, Array, LogitsFn, Params
from spartax.train.losses.distillation import distillation
from spartax.train.network import Loss


class Student(NamedTuple):
    """A network to be taught.

    Attributes:
      apply: `apply(variables, x) -> logits [B, K]` in evaluation mode.
      variables: those training begins with.
    """

    apply: ApplyFn
    variables: Params


def progressive(
    fit: Callable[[Student, Loss, Array], Params],
    teacher: LogitsFn,
    students: Sequence[Student],
    key: Array,
    *,
    source: str = "previous",
    alpha: float = 0.7,
    temperature: float = 3.0,
) -> list[Student]:
    """Train one student after another by `losses.distillation`: the first from the teacher, each next from the last.

    A student a little smaller than its teacher follows it more closely than a much smaller one would, and the smallest
    learns from one it can follow: that is the idea. `ensemble` lets all of them vote. The scheme of "Mamba base PKD for
    efficient knowledge compression" (S094), as far as its abstract tells, for students of any kind.

    Args:
      fit: `(student, loss, key) -> variables`, trained to the end, such as a call of `train.make_step` and `train.fit`.
      teacher: `x -> logits [B, K]` in evaluation mode.
      students: from the largest to the smallest.
      key: PRNG key; student `i` trains with `fold_in(key, i)`.
      source: who teaches: the "previous" student, or the "teacher" all of them.
      alpha: share of what teaches in the loss, in [0, 1].
      temperature: `T` of `losses.distillation`.

    Returns:
      The students with their trained variables, in the same order.

    Raises:
      ValueError: no students, one that is not smaller than the one before, values out of range.
    """
    checks.one_of("source", source, ("previous", "teacher"))
    sizes = [_parameters(student.variables) for student in students]
    if not sizes or any(b >= a for a, b in itertools.pairwise(sizes)):
        raise ValueError(f"students must be given from the largest to the smallest; got {sizes} parameters.")
    trained = []
    for number, student in enumerate(students):
        loss = distillation(teacher, alpha=alpha, temperature=temperature)
        trained.append(student._replace(variables=fit(student, loss, jax.random.fold_in(key, number))))
        if source == "previous":
            teacher = jax.tree_util.Partial(*trained[-1])
    return trained


def ensemble(students: Sequence[Student], scores: Sequence[float]) -> LogitsFn:
    """`x -> sum_i a_i f_i(x) / sum_i a_i`, the logits of students that vote with weights a.

    Args:
      students: such as `progressive` gives.
      scores: their weights, 0 or more, such as accuracies on held-out data.

    Raises:
      ValueError: other than one score a student, a negative one, or none above 0.
    """
    weights = np.asarray(scores, np.float32)
    if weights.shape != (len(students),) or not weights.sum() > 0 or weights.min() < 0:
        raise ValueError(f"scores must be one number of at least 0 for each of {len(students)} students; got {scores}.")
    members = [jax.tree_util.Partial(*student) for student in students]
    return jax.tree_util.Partial(_vote, members, jnp.asarray(weights / weights.sum()))


def _vote(members: list[LogitsFn], weights: Array, x: Array) -> Array:
    return jnp.tensordot(weights, jnp.stack([member(x) for member in members]), 1)


def _parameters(variables: Params) -> int:
    return sum(x.size for x in jax.tree.leaves(variables))
