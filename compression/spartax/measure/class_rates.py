"""How well one class is found: misses, false alarms, and how its examples are ranked."""

from typing import NamedTuple

import numpy as np

from spartax import checks
from spartax.records import Array


class ClassRates(NamedTuple):
    """Of one class, each a number in [0, 1].

    Attributes:
      misses: part of its examples that are taken for another class (false negatives).
      false_alarms: part of the other examples that are taken for it (false positives).
      auc: how often an example of it has larger log-odds than another example, ties counting half.
    """

    misses: float
    false_alarms: float
    auc: float


def class_rates(logits: Array | np.ndarray, y: Array | np.ndarray, label: int, *, threshold: float = 0.0) -> ClassRates:
    """Rates of the class `label`, which is predicted where its log-odds are above `threshold`.

    The log-odds are `z_c - log sum_{k != c} exp z_k`; with two classes 0 is the largest logit. The area under the curve
    of detection against false alarms is the statistic of Mann and Whitney, `mean_{i, j} [o_i > o_j] + [o_i = o_j] / 2`.
    Choose a threshold on other examples than those that are reported.

    Args:
      logits: [N, K].
      y: labels, integers [N].
      label: the class.
      threshold: in log-odds.

    Raises:
      ValueError: labels that do not fit, a class that is unknown, or that holds none or all of the examples.
    """
    values = np.asarray(logits, np.float64)
    checks.labels("y", y, batch=len(values), classes=values.shape[1])
    checks.one_of("label", label, range(values.shape[1]))
    own = np.asarray(y) == label
    if own.all() or not own.any():
        raise ValueError(f"y must hold examples of class {label} and others; got {own.sum()} of {len(own)}.")
    odds = values[:, label] - _log_sum(np.delete(values, label, axis=1))
    found = odds > threshold
    return ClassRates(float(np.mean(~found[own])), float(np.mean(found[~own])), _auc(odds[own], odds[~own]))


def _log_sum(values: np.ndarray) -> np.ndarray:
    largest = values.max(axis=1, keepdims=True)
    return largest[:, 0] + np.log(np.exp(values - largest).sum(axis=1))


def _auc(inside: np.ndarray, outside: np.ndarray) -> float:
    others = np.sort(outside)
    below, up_to = (np.searchsorted(others, inside, side=side) for side in ("left", "right"))
    return float(np.mean(below + up_to) / (2 * len(others)))
