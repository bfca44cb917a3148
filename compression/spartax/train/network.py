"""What a training loss sees of a network."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from spartax.records import Array, LogitsFn, Params

LOG = "log"  # beside the collections that a loss updates: numbers for the logs
_Function = TypeVar("_Function", bound=Callable[..., Any])
TrainApply = Callable[[Params, Array], tuple[Array, dict[str, Any]]]  # (variables, x) -> (logits, updated collections)


class Network(NamedTuple):
    """A network with its current weights.

    Attributes:
      logits: `x -> logits [B, K]` in evaluation mode: what an attack attacks.
      forward: `x -> (logits [B, K], updates)` in training mode; `updates` holds the collections that the pass changed,
        such as `{"batch_stats": ...}`, and is empty for most networks.
      variables: the weights as they are now (compressed leaves among them), for losses that look at weights.
      trainable: the trained arrays among them, None elsewhere (`tree.split`).
      at: `trainable -> network` with these instead, for losses that move the weights; None where there is no such.
    """

    logits: LogitsFn
    forward: Callable[[Array], tuple[Array, dict[str, Any]]]
    variables: Params = None
    trainable: Params = None
    at: Callable[[Params], "Network"] | None = None


class Loss(Protocol):
    """`loss(network, key, x [B, ...], y [B]) -> (value, updates)`: a number to lower, and what `forward` updated.

    Beside the collections, `updates["log"]` may hold numbers `{name: scalar}`, which `train.fit` writes to its logs;
    its own names (step, loss, images_per_second) are taken. A loss that attacks `x` is marked by `train.attacking`; one
    around another keeps its mark by `functools.wraps(base)`.
    """

    def __call__(self, network: Network, key: Array, x: Array, y: Array) -> tuple[Array, dict[str, Any]]:
        """`key` is consumed; the value is a mean over the batch, float32."""
        ...


def attacking(function: _Function, like: Callable[..., Any] | None = None) -> _Function:
    """Mark a loss that attacks its images, which `train.fit` then wants in [0, 1].

    Args:
      function: the loss; it is returned.
      like: mark it only if this loss is marked.
    """
    vars(function)["attacks"] = like is None or is_attacking(like)
    return function


def is_attacking(function: Callable[..., Any]) -> bool:
    """Whether a loss, or the step of one, attacks its images."""
    return getattr(function, "attacks", False)
